//! Messages and their results.

use super::harness::*;
use crate::abi::*;
