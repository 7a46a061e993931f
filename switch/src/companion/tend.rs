//! The service thread's part: what the application's calls have left undone, and who is told when
//! that has changed what is to be seen.
//!
//! Invariants: whatever waits for nobody's call is done by [`Companion::tend`], and never waits;
//! others are told with no lock of the companion held.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::Companion;
use super::state::{Core, GUARDED, SAN, Stage};
use crate::conn::{Observer, Zeal};

impl Companion {
    /// Does what the application's calls have not done; `true` if something is still to be done.
    pub(super) fn tend(&self) -> bool {
        let mut core = self.core.lock();
        if core.parting.is_some() {
            return self.go_on_parting(&mut core);
        }
        if core.lost.is_some() || (!core.closed && self.lose(&mut core)) {
            self.resume(&mut core);
            let pending = Companion::is_resuming(&core);
            drop(core);
            self.moved();
            self.show(None, true, true);
            self.tell_used();
            return pending;
        }
        self.tell_loss(&core);
        if core.stage != Stage::Up && core.marker_out.is_empty() {
            drop(core);
            // The caller may just have taken the last step back.
            self.moved();
            return false;
        }
        self.hands(&mut core);
        if !core.marker_out.is_empty() && !core.awaits() {
            self.write_marker(&mut core);
        }
        self.cut(&mut core);
        self.fetch_marker(&mut core, false);
        if core.end_due && core.connection.as_ref().is_none_or(|one| one.is_closed()) {
            self.write_marker(&mut core);
        }
        // Who has met it finds it now, or finds that there is none.
        let due = core.marker_met && (self.rx.phase() != GUARDED || core.cut.is_some());
        core.marker_met &= !due;
        let pending = !core.marker_out.is_empty()
            || core.hand.is_some()
            || self.rx.phase() == GUARDED
            || self.tx.phase() == GUARDED;
        if core.stage != Stage::Up && core.marker_out.is_empty() {
            core.tcp = None;
        }
        let mixed = core.shadow.is_some() && self.rx.phase() == GUARDED;
        drop(core);
        self.moved();
        if due {
            self.tell_due();
        }
        if mixed {
            // The kernel's arrivals are to be shown, too.
            let news = self.look();
            self.show(news.as_ref(), false, true);
        }
        pending
    }

    /// How soon the service thread has to tell.
    pub(super) fn zeal(&self, core: &Core) -> Zeal {
        let attended = self.attended.load(Ordering::SeqCst);
        let whole = self.rx.phase() == SAN && self.tx.phase() == SAN;
        match attended {
            // Who attends sees everything that the session has to tell.
            true if whole && core.marker_out.is_empty() => Zeal::Never,
            false if core.shadow.is_some() => Zeal::High,
            _ => Zeal::Low,
        }
    }

    /// Has the service thread be as zealous as is right now.
    pub(super) fn attend(&self, core: &mut Core) {
        let zeal = self.zeal(core);
        let Some(connection) = &core.connection else {
            return;
        };
        if core.told_zeal.replace(zeal) != Some(zeal) {
            let me: Weak<dyn Observer> = self.me.clone();
            connection.attend(Some((me, zeal)));
        }
    }

    /// Tells the watchers if readiness has moved between the kernel and the shadow.
    pub(super) fn moved(&self) {
        self.display();
        let mut core = self.core.lock();
        let san = !self.on_kernel();
        if core.stage == Stage::Up {
            self.attend(&mut core);
        }
        if core.told_san == san {
            return;
        }
        core.told_san = san;
        drop(core);
        if san {
            let news = self.look();
            self.show(news.as_ref(), false, true);
        }
        self.tell_moved();
    }
}

impl Observer for Companion {
    fn news(&self) {
        let connection = {
            let core = self.core.lock();
            core.connection.clone()
        };
        let Some(connection) = connection else { return };
        let news = connection.look();
        if news.suspending || news.leaving {
            let mut core = self.core.lock();
            if core.is_carried_by(&connection) {
                self.follow(&mut core);
            }
            drop(core);
        }
        self.tend();
        if !self.attended.load(Ordering::Relaxed) {
            self.show(Some(&news), true, true);
        }
        self.tell_used();
    }
}
