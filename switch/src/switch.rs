//! The switch: the providers of this process, the address table over them, and what there is to
//! tell about both.
//!
//! Owns the started providers. Decides for each connection and each listener which providers come
//! into question; carrying it out is `connect` and `listener`.

use std::env;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::conn;
use crate::load::{self, Unusable};
use crate::provider::{Capabilities, Provider, Source};
use crate::reason::Reason;
use crate::route::RouteTable;
use crate::sys::{self, AddressWatch};
use crate::table::EntryPoint;

/// Without a notice of changed addresses the table is made anew when it is older than this.
const TABLE_AGE: Duration = Duration::from_secs(5);

/// A set of providers with TCP beside them. Clones share the providers.
#[derive(Clone)]
pub struct Switch {
    inner: Arc<Inner>,
}

struct Inner {
    /// `WSD_SWITCH=off`: there are no providers then.
    off: bool,
    /// In the order of loading, which is the order of preference.
    providers: Vec<Arc<Provider>>,
    unusable: Vec<Unusable>,
    watch: Option<AddressWatch>,
    /// Guards the table only; providers are asked while it is held, one asker at a time.
    routes: Mutex<Routes>,
}

struct Routes {
    table: Arc<RouteTable>,
    made: Instant,
}

impl Switch {
    /// The switch of this process, made at the first use from the environment.
    pub fn global() -> &'static Switch {
        static GLOBAL: OnceLock<Switch> = OnceLock::new();
        GLOBAL.get_or_init(Switch::from_environment)
    }

    /// A switch over the linked provider and those the environment and the host name; without any
    /// if `WSD_SWITCH=off`.
    #[must_use]
    pub fn from_environment() -> Switch {
        // What cannot be understood is to be told now, not at the first connection.
        conn::read_environment();
        match env::var("WSD_SWITCH") {
            Ok(value) if value.eq_ignore_ascii_case("off") => {
                return Switch::over(true, Vec::new());
            }
            Ok(value) if !value.eq_ignore_ascii_case("on") => {
                let name = "WSD_SWITCH";
                tracing::warn!(name, value, "neither \"on\" nor \"off\"; the switch is on");
            }
            _ => {}
        }
        Switch::over(false, load::entries())
    }

    /// A switch over these providers only, in order of preference.
    pub fn with_providers(entries: impl IntoIterator<Item = EntryPoint>) -> Switch {
        Switch::over(false, entries.into_iter().map(Ok).collect())
    }

    fn over(off: bool, entries: Vec<Result<EntryPoint, Unusable>>) -> Switch {
        let (mut providers, mut unusable) = (Vec::new(), Vec::new());
        let mut served = Vec::new();
        for entry in entries {
            let started = entry.and_then(|entry| {
                let source = entry.source().clone();
                Provider::start(entry).map_err(|why| Unusable { source, why })
            });
            match started {
                Ok((provider, addresses)) => {
                    served.push((providers.len(), addresses));
                    providers.push(Arc::new(provider));
                }
                Err(absent) => {
                    tracing::info!(source = ?absent.source, why = absent.why, "provider unusable");
                    unusable.push(absent);
                }
            }
        }
        // The watch begins before the interfaces are read, so that no change falls between.
        let watch = if providers.is_empty() {
            None
        } else {
            AddressWatch::new().ok()
        };
        let interfaces = sys::interface_addresses().unwrap_or_default();
        let table = Arc::new(RouteTable::new(&served, &interfaces));
        let routes = Mutex::new(Routes {
            table,
            made: Instant::now(),
        });
        Switch {
            inner: Arc::new(Inner {
                off,
                providers,
                unusable,
                watch,
                routes,
            }),
        }
    }

    /// The address table, made anew if an address came or went since the last time.
    fn routes(&self) -> Arc<RouteTable> {
        let inner = &self.inner;
        let mut routes = inner.routes.lock();
        let stale = match &inner.watch {
            Some(watch) => watch.has_changed(),
            None => routes.made.elapsed() > TABLE_AGE,
        };
        if stale && !inner.providers.is_empty() {
            let ask = |(index, provider): (usize, &Arc<Provider>)| {
                (index, provider.addresses().unwrap_or_default())
            };
            let served: Vec<_> = inner.providers.iter().enumerate().map(ask).collect();
            let interfaces = sys::interface_addresses().unwrap_or_default();
            let table = Arc::new(RouteTable::new(&served, &interfaces));
            *routes = Routes {
                table,
                made: Instant::now(),
            };
        }
        Arc::clone(&routes.table)
    }

    /// The provider towards a destination, or why there is none.
    pub(crate) fn provider_towards(&self, to: IpAddr) -> Result<Arc<Provider>, Reason> {
        self.some_provider()?;
        let index = self.routes().provider_towards(to).ok_or(Reason::NoRoute)?;
        self.inner
            .providers
            .get(index)
            .cloned()
            .ok_or(Reason::NoRoute)
    }

    /// The providers that serve a local address, or why there is none.
    pub(crate) fn providers_at(&self, local: IpAddr) -> Result<Vec<Arc<Provider>>, Reason> {
        self.some_provider()?;
        let indices = self.routes().providers_at(local);
        let providers = indices
            .iter()
            .filter_map(|index| self.inner.providers.get(*index));
        let providers: Vec<_> = providers.cloned().collect();
        if providers.is_empty() {
            Err(Reason::NoRoute)
        } else {
            Ok(providers)
        }
    }

    fn some_provider(&self) -> Result<(), Reason> {
        if self.inner.off {
            Err(Reason::SwitchOff)
        } else if self.inner.providers.is_empty() {
            Err(Reason::NoProvider)
        } else {
            Ok(())
        }
    }

    /// What there is to tell about the providers, asked from them anew.
    #[must_use]
    pub fn info(&self) -> SwitchInfo {
        let usable = self.inner.providers.iter().map(|provider| ProviderInfo {
            name: provider.name().to_owned(),
            source: provider.source().clone(),
            state: provider.capabilities(),
        });
        let unusable = self.inner.unusable.iter().map(|absent| ProviderInfo {
            name: absent.source.to_string(),
            source: absent.source.clone(),
            state: Err(absent.why.clone()),
        });
        let providers = usable.chain(unusable).collect();
        SwitchInfo {
            reason: self.some_provider().err(),
            providers,
        }
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self
            .inner
            .providers
            .iter()
            .map(|provider| provider.name())
            .collect();
        f.debug_struct("Switch")
            .field("providers", &names)
            .finish_non_exhaustive()
    }
}

/// What a switch has to offer.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SwitchInfo {
    /// Why everything uses TCP, if it does.
    pub reason: Option<Reason>,
    /// Every provider that was found, in order of preference; the unusable ones last.
    pub providers: Vec<ProviderInfo>,
}

/// One provider, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProviderInfo {
    /// What it calls itself.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// What it can do, or why it cannot be used.
    pub state: Result<Capabilities, String>,
}
