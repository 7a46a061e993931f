//! What a program started by this one needs in its environment: the preload library and the
//! settings that came with it.
//!
//! Owns: what stood there when the library was loaded. Invariants: an environment that has all of it
//! is handed on as it is; completing one takes pages of its own and no allocator, for it happens
//! between fork and exec, too; what the program has set itself is never overruled.

use core::ffi::{CStr, c_char, c_void};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;

use crate::file;

const PRELOAD: &[u8] = b"LD_PRELOAD=";
const OURS: &[u8] = b"WSD_";

/// Pointers to strings, ended by null, as exec takes them.
pub(crate) type Strings = *const *const c_char;

unsafe extern "C" {
    /// The program's environment now.
    static environ: Strings;
}

/// The program's environment now.
pub(crate) fn current() -> Strings {
    // SAFETY: libc defines it, and reading a pointer while another thread sets it gives one of the
    // two, as in libc's own exec functions.
    unsafe { environ }
}

/// What is to be handed on.
#[derive(Debug)]
struct Kept {
    /// The path of this library, if LD_PRELOAD names it.
    library: Option<CString>,
    /// Our settings, as NAME=VALUE.
    settings: Vec<CString>,
}

static KEPT: OnceLock<Kept> = OnceLock::new();

/// Notes what stands in the environment; done when the library is loaded.
pub(crate) fn remember() {
    KEPT.get_or_init(|| {
        let listed = std::env::var_os("LD_PRELOAD").unwrap_or_default();
        let library = own_path().filter(|path| lists(listed.as_bytes(), path.as_bytes()));
        Kept {
            library,
            settings: settings(std::env::vars_os()),
        }
    });
}

/// The value of a setting of ours as it was when the library was loaded; null if it had none.
pub(crate) fn setting(name: &CStr) -> *mut c_char {
    let name = name.to_bytes();
    let kept = KEPT.get().filter(|_| name.starts_with(OURS));
    let mut settings = kept.into_iter().flat_map(|kept| &kept.settings);
    let found = settings.find_map(|setting| {
        let value = setting.to_bytes().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.as_ptr())
    });
    found.map_or(core::ptr::null_mut(), |value| value.cast_mut().cast())
}

fn settings(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<CString> {
    all.filter(|(name, _)| name.as_bytes().starts_with(OURS))
        .filter_map(|(name, value)| {
            let mut both = name.into_vec();
            both.push(b'=');
            both.extend(value.into_vec());
            CString::new(both).ok()
        })
        .collect()
}

/// Where this library was loaded from, also for a program that starts in another folder.
fn own_path() -> Option<CString> {
    let mut about = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let own: fn() = remember;
    // SAFETY: any address may be asked for; the pointer leads to room for the answer.
    let found = unsafe { libc::dladdr(own as *const c_void, about.as_mut_ptr()) };
    // SAFETY: zeros, or filled in by the call.
    let name = unsafe { about.assume_init() }.dli_fname;
    if found == 0 || name.is_null() {
        return None;
    }
    // SAFETY: the loader's name of a loaded object, which stays.
    let name = unsafe { CStr::from_ptr(name) };
    let path = std::path::Path::new(OsStr::from_bytes(name.to_bytes()));
    let path = std::path::absolute(path).ok()?;
    CString::new(path.into_os_string().into_vec()).ok()
}

/// Whether a list of preloaded libraries has this one, by its path or by its name.
fn lists(list: &[u8], library: &[u8]) -> bool {
    list.split(|byte| matches!(byte, b':' | b' '))
        .any(|one| !one.is_empty() && last_part(one) == last_part(library))
}

fn last_part(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// An environment to start a program with; pages that hold what was added to it.
pub(crate) struct Environment {
    strings: Strings,
    /// Keeps what was added.
    _pages: Option<Pages>,
}

impl Environment {
    pub(crate) fn strings(&self) -> Strings {
        self.strings
    }

    /// The same, for functions that take it as if they might write to it.
    pub(crate) fn strings_of_spawn(&self) -> *const *mut c_char {
        self.strings.cast()
    }
}

/// Memory of its own, given back when it is dropped.
pub(crate) struct Pages {
    at: *mut c_void,
    length: usize,
}

impl Pages {
    pub(crate) fn new(length: usize) -> Option<Pages> {
        let at = file::zeroed_pages(length)?;
        Some(Pages { at, length })
    }

    /// The room as pointers, all null at first.
    pub(crate) fn pointers(&mut self) -> &mut [*const c_char] {
        let count = self.length / size_of::<*const c_char>();
        // SAFETY: pages are aligned for anything, as long as said, zeroed, and lent with self.
        unsafe { core::slice::from_raw_parts_mut(self.at.cast(), count) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        file::give_pages_back(self.at, self.length);
    }
}

/// The string's bytes without the NUL.
///
/// # Safety
/// The string is live for the result's life.
unsafe fn text<'a>(string: *const c_char) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_bytes()
}

/// The environment with what is missing of ours.
///
/// # Safety
/// As for execve: null, or pointers to strings, ended by null, that stay while the result lives.
pub(crate) unsafe fn completed(environment: Strings) -> Environment {
    let as_it_is = Environment {
        strings: environment,
        _pages: None,
    };
    let Some(kept) = KEPT.get() else {
        return as_it_is;
    };
    // SAFETY: the caller's promise.
    unsafe { complete(environment, kept) }.unwrap_or(as_it_is)
}

/// `None`: nothing is missing, or there is no memory.
///
/// # Safety
/// As for [`completed`].
unsafe fn complete(environment: Strings, kept: &Kept) -> Option<Environment> {
    let mut count = 0;
    let mut preload: Option<(usize, &[u8])> = None;
    if !environment.is_null() {
        loop {
            // SAFETY: all before were not null, so this one is still of the array.
            let string = unsafe { environment.wrapping_add(count).read() };
            if string.is_null() {
                break;
            }
            // SAFETY: the caller's promise.
            let entry = unsafe { text(string) };
            if let Some(value) = entry.strip_prefix(PRELOAD)
                && preload.is_none()
            {
                preload = Some((count, value));
            }
            count += 1;
        }
    }
    let listed = preload.map_or(b"".as_slice(), |(_, value)| value);
    let library = kept
        .library
        .as_ref()
        .map(|library| library.as_bytes())
        .filter(|library| !lists(listed, library));
    // SAFETY: the caller's promise.
    let is_there = |setting: &&CString| unsafe { has(environment, count, setting) };
    let missing = kept.settings.iter().filter(|one| !is_there(one)).count();
    if library.is_none() && missing == 0 {
        return None;
    }
    // The pointers, the null, perhaps one more for LD_PRELOAD; behind them its text.
    let pointers = count + missing + 2;
    let word = size_of::<*const c_char>();
    let room = library.map_or(0, |library| {
        PRELOAD.len() + library.len() + listed.len() + 2
    });
    let mut pages = Pages::new((pointers + room.div_ceil(word)) * word)?;
    let (all, rest) = pages.pointers().split_at_mut_checked(pointers)?;
    let mut places = all.iter_mut();
    for index in 0..count {
        // SAFETY: `count` pointers stand there.
        *places.next()? = unsafe { environment.wrapping_add(index).read() };
    }
    for setting in kept.settings.iter().filter(|one| !is_there(one)) {
        *places.next()? = setting.as_ptr();
    }
    if let Some(library) = library {
        let bytes: *mut u8 = rest.as_mut_ptr().cast();
        // SAFETY: `room` bytes are behind the pointers, all zero.
        let bytes = unsafe { core::slice::from_raw_parts_mut(bytes, room) };
        let string = bytes.as_ptr().cast();
        let mut room = bytes.iter_mut();
        let separator = if listed.is_empty() {
            b"".as_slice()
        } else {
            b":"
        };
        for part in [PRELOAD, library, separator, listed] {
            for byte in part {
                *room.next()? = *byte;
            }
        }
        match preload.and_then(|(index, _)| all.get_mut(index)) {
            Some(place) => *place = string,
            None => *all.get_mut(count + missing)? = string,
        }
    }
    let strings = pages.pointers().as_ptr();
    Some(Environment {
        strings,
        _pages: Some(pages),
    })
}

/// Whether the variable of a setting is set to anything.
///
/// # Safety
/// `count` strings stand there.
unsafe fn has(environment: Strings, count: usize, setting: &CStr) -> bool {
    let name = setting
        .to_bytes()
        .split_inclusive(|byte| *byte == b'=')
        .next()
        .unwrap_or_default();
    (0..count).any(|index| {
        // SAFETY: the caller's promise.
        let string = unsafe { environment.wrapping_add(index).read() };
        // SAFETY: the caller's promise.
        unsafe { text(string) }.starts_with(name)
    })
}

/// How many descriptors from 3 on the environment says are handed on by the protocol of socket
/// activation (LISTEN_FDS).
///
/// # Safety
/// As for [`completed`].
pub(crate) unsafe fn handed_on(environment: Strings) -> i32 {
    if environment.is_null() {
        return 0;
    }
    let mut at = environment;
    loop {
        // SAFETY: all before were not null, so this one is still of the array.
        let string = unsafe { *at };
        if string.is_null() {
            return 0;
        }
        // SAFETY: the caller's promise.
        if let Some(value) = unsafe { text(string) }.strip_prefix(b"LISTEN_FDS=") {
            return core::str::from_utf8(value)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0);
        }
        // SAFETY: the null is not reached yet.
        at = unsafe { at.add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr;

    fn kept(library: Option<&str>, settings: &[&str]) -> Kept {
        Kept {
            library: library.map(|one| CString::new(one).unwrap()),
            settings: settings
                .iter()
                .map(|one| CString::new(*one).unwrap())
                .collect(),
        }
    }

    /// What an environment becomes; `None`: it is handed on as it is.
    fn made(before: &[&str], kept: &Kept) -> Option<Vec<String>> {
        let strings: Vec<CString> = before
            .iter()
            .map(|one| CString::new(*one).unwrap())
            .collect();
        let mut pointers: Vec<*const c_char> = strings.iter().map(|one| one.as_ptr()).collect();
        pointers.push(ptr::null());
        // SAFETY: live strings, ended by null.
        let environment = unsafe { complete(pointers.as_ptr(), kept) }?;
        let mut after = Vec::new();
        for index in 0.. {
            // SAFETY: up to the null there are strings.
            let string = unsafe { environment.strings().wrapping_add(index).read() };
            if string.is_null() {
                break;
            }
            // SAFETY: as above.
            after.push(String::from_utf8(unsafe { text(string) }.to_vec()).unwrap());
        }
        Some(after)
    }

    #[test]
    fn an_environment_that_has_all_is_handed_on_as_it_is() {
        let ours = kept(Some("/lib/libwsd_preload.so"), &["WSD_EAGER=1"]);
        let all = [
            "A=b",
            "LD_PRELOAD=x.so:/lib/libwsd_preload.so",
            "WSD_EAGER=0",
        ];
        assert_eq!(made(&all, &ours), None);
        assert_eq!(
            made(&["LD_PRELOAD=libwsd_preload.so", "WSD_EAGER="], &ours),
            None
        );
        assert_eq!(made(&["A=b"], &kept(None, &[])), None);
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_else_changes() {
        let ours = kept(Some("/lib/l.so"), &["WSD_EAGER=1", "WSD_LOG=x"]);
        assert_eq!(
            made(&["A=b", "WSD_LOG=y"], &ours).unwrap(),
            ["A=b", "WSD_LOG=y", "WSD_EAGER=1", "LD_PRELOAD=/lib/l.so"]
        );
        assert_eq!(
            made(&["LD_PRELOAD=a.so b.so", "A=b"], &ours).unwrap(),
            [
                "LD_PRELOAD=/lib/l.so:a.so b.so",
                "A=b",
                "WSD_EAGER=1",
                "WSD_LOG=x"
            ]
        );
        assert_eq!(
            made(
                &["LD_PRELOAD=", "WSD_EAGER_=1"],
                &kept(Some("/l.so"), &["WSD_EAGER=1"])
            )
            .unwrap(),
            ["LD_PRELOAD=/l.so", "WSD_EAGER_=1", "WSD_EAGER=1"]
        );
        assert_eq!(
            made(&[], &kept(Some("/l.so"), &[])).unwrap(),
            ["LD_PRELOAD=/l.so"]
        );
        // SAFETY: null is no environment at all.
        let none = unsafe { complete(ptr::null(), &ours) };
        assert!(none.is_some_and(|all| !all.strings().is_null()));
    }

    #[test]
    fn a_large_environment_fits() {
        let many: Vec<String> = (0..5000).map(|index| format!("V{index}=x")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = format!("/{}/l.so", "p".repeat(5000));
        let after = made(&many, &kept(Some(&long), &["WSD_A=1"])).unwrap();
        assert_eq!(after.len(), 5002);
        assert_eq!(after[5001], format!("LD_PRELOAD={long}"));
        assert_eq!(after[4999], "V4999=x");
    }

    #[test]
    fn only_our_settings_are_kept() {
        let all = [("WSD_A", "1"), ("WSDX", "2"), ("PATH", "3"), ("WSD_", "")];
        let all = all.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        assert_eq!(
            settings(all.into_iter()),
            [c"WSD_A=1".into(), CString::from(c"WSD_=")]
        );
    }

    #[test]
    fn the_numbers_of_socket_activation_are_read() {
        let read = |strings: &[&CStr]| {
            let mut pointers: Vec<*const c_char> = strings.iter().map(|one| one.as_ptr()).collect();
            pointers.push(ptr::null());
            // SAFETY: live strings, ended by null.
            unsafe { handed_on(pointers.as_ptr()) }
        };
        assert_eq!(read(&[c"A=1", c"LISTEN_FDS=2"]), 2);
        assert_eq!(read(&[c"LISTEN_FDS=x"]), 0);
        assert_eq!(read(&[]), 0);
        // SAFETY: null is no environment at all.
        assert_eq!(unsafe { handed_on(ptr::null()) }, 0);
    }
}
