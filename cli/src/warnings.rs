//! Warnings of the libraries, for people: on standard error, each once.
//!
//! Owns: which variables of the environment were not understood, as their readers have told.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::output;

/// Variables whose values were not understood.
static IGNORED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn ignored() -> MutexGuard<'static, BTreeSet<String>> {
    IGNORED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether somebody has said that the value of this variable is not understood.
pub(crate) fn is_ignored(variable: &str) -> bool {
    ignored().contains(variable)
}

/// From now on warnings are shown.
pub(crate) fn show() {
    // Only a second call can fail, and then they are shown already.
    tracing::subscriber::set_global_default(Warnings).ok();
}

struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if let Some(variable) = said.variable
            // Provider and switch read some of the same ones.
            && !ignored().insert(variable)
        {
            return;
        }
        output::note(&format!("warning: {}{}", said.message, said.details));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What a warning consists of.
#[derive(Default)]
struct Said {
    message: String,
    details: String,
    variable: Option<String>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" && value.starts_with("WSD_") {
            self.variable = Some(value.to_owned());
        }
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.details, ", {}: {value:?}", field.name()).ok();
        }
    }
}
