//! Options, control codes, and the extension functions fetched by them.

use std::ffi::c_void;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

use wsdirect::abi::{self, DWORD, GUID};

use super::{Extensions, RawSocket, Table, filled, length, status};
use crate::address;
use crate::error::WsaError;

impl Table {
    /// An unsigned option of 32 bits at the level of the interface.
    pub(crate) fn option(&self, socket: &RawSocket, name: i32) -> Result<u32, WsaError> {
        let call = filled(self.slots.lpWSPGetSockOpt)?;
        let (mut value, mut len) = (0u32, length(size_of::<u32>()));
        let (place, level) = ((&raw mut value).cast(), abi::WSD_SOL_SOCKET);
        let room = &raw mut len;
        // SAFETY: the table's function; value and length live during the call.
        status(|errno| unsafe { call(socket.socket, level, name, place, room, errno) })?;
        Ok(value)
    }

    pub(crate) fn set_option(
        &self,
        socket: &RawSocket,
        name: i32,
        value: u32,
    ) -> Result<(), WsaError> {
        let call = filled(self.slots.lpWSPSetSockOpt)?;
        let (place, len) = ((&raw const value).cast(), length(size_of::<u32>()));
        let level = abi::WSD_SOL_SOCKET;
        // SAFETY: the table's function; the value lives during the call.
        status(|errno| unsafe { call(socket.socket, level, name, place, len, errno) })
    }

    fn ioctl(
        &self,
        socket: &RawSocket,
        control: DWORD,
        input: &[u8],
        output: &mut [u64],
    ) -> (Result<(), WsaError>, usize) {
        let call = match filled(self.slots.lpWSPIoctl) {
            Ok(call) => call,
            Err(error) => return (Err(error), 0),
        };
        let room = u32::try_from(size_of_val(output)).unwrap_or(u32::MAX);
        let given = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let (from, to) = (input.as_ptr().cast_mut().cast(), output.as_mut_ptr().cast());
        let mut returned = 0u32;
        let count = &raw mut returned;
        // SAFETY: the table's function; both buffers live during the call and are as long as
        // stated; the input is only read.
        let result = status(|errno| unsafe {
            call(
                socket.socket,
                control,
                from,
                given,
                to,
                room,
                count,
                ptr::null_mut(),
                None,
                ptr::null_mut(),
                errno,
            )
        });
        (result, usize::try_from(returned).unwrap_or(usize::MAX))
    }

    /// The addresses the provider serves: asked with too little room first, then with enough.
    pub(crate) fn addresses(&self, socket: &RawSocket) -> Result<Vec<SocketAddr>, WsaError> {
        let mut room = vec![0u64; 1];
        // The list may grow between two calls, but not for ever.
        for _ in 0..8 {
            match self.ioctl(socket, abi::SIO_ADDRESS_LIST_QUERY, &[], &mut room) {
                (Ok(()), _) => return Ok(address_list(&room)),
                (Err(WsaError(abi::WSAEFAULT)), needed) if needed <= 1 << 20 => {
                    let words = needed.div_ceil(size_of::<u64>()).max(room.len() + 1);
                    room = vec![0; words];
                }
                (Err(error), _) => return Err(error),
            }
        }
        Err(WsaError(abi::WSAEINVALIDPROVIDER))
    }

    fn extension(&self, socket: &RawSocket, guid: &GUID) -> Result<*const c_void, WsaError> {
        let mut input = [0u8; 16];
        let fields = guid
            .Data1
            .to_ne_bytes()
            .into_iter()
            .chain(guid.Data2.to_ne_bytes());
        let fields = fields.chain(guid.Data3.to_ne_bytes()).chain(guid.Data4);
        for (to, from) in input.iter_mut().zip(fields) {
            *to = from;
        }
        let mut output = [0u64; 1];
        let control = abi::SIO_GET_EXTENSION_FUNCTION_POINTER;
        self.ioctl(socket, control, &input, &mut output).0?;
        let address = output.first().copied().unwrap_or_default();
        let address = usize::try_from(address).unwrap_or_default();
        if address == 0 {
            return Err(WsaError(abi::WSAEINVALIDPROVIDER));
        }
        Ok(ptr::with_exposed_provenance(address))
    }

    /// Asks for the seven extension functions, and for our own last. On failure: the name of
    /// the one that the provider must have and has not.
    pub(crate) fn fetch_extensions(
        &mut self,
        socket: &RawSocket,
    ) -> Result<(), (&'static str, WsaError)> {
        macro_rules! fetch {
            ($guid:ident as $function:ident) => {
                self.extension(socket, &abi::$guid).map(|function| {
                    // SAFETY: the provider answered the function's own GUID, so it has this type.
                    unsafe { mem::transmute::<*const c_void, abi::$function>(function) }
                })
            };
        }
        let must = |name| move |error| (name, error);
        let register = fetch!(WSAID_REGISTERMEMORY as LPFN_WSPREGISTERMEMORY);
        let deregister = fetch!(WSAID_DEREGISTERMEMORY as LPFN_WSPDEREGISTERMEMORY);
        let register_rdma = fetch!(WSAID_REGISTERRDMAMEMORY as LPFN_WSPREGISTERRDMAMEMORY);
        let deregister_rdma = fetch!(WSAID_DEREGISTERRDMAMEMORY as LPFN_WSPDEREGISTERRDMAMEMORY);
        let rdma_write = fetch!(WSAID_RDMAWRITE as LPFN_WSPRDMAWRITE);
        // The next may be missing.
        let rdma_read = fetch!(WSAID_RDMAREAD as LPFN_WSPRDMAREAD);
        // Asked for as every switch does; the switch gives no memory back behind a cache's back.
        let cache = self.extension(socket, &abi::WSAID_MEMORYREGISTRATIONCACHECALLBACK);
        let arm = fetch!(WSAID_ARMCOMPLETION as LPFN_WSPARMCOMPLETION);
        let take_progress = fetch!(WSAID_TAKEPROGRESS as LPFN_WSPTAKEPROGRESS);
        let make_progress = fetch!(WSAID_MAKEPROGRESS as LPFN_WSPMAKEPROGRESS);
        self.extensions = Extensions {
            register: register.map_err(must("WSPRegisterMemory"))?,
            deregister: deregister.map_err(must("WSPDeregisterMemory"))?,
            register_rdma: register_rdma.map_err(must("WSPRegisterRdmaMemory"))?,
            deregister_rdma: deregister_rdma.map_err(must("WSPDeregisterRdmaMemory"))?,
            rdma_write: rdma_write.map_err(must("WSPRdmaWrite"))?,
            rdma_read: rdma_read.ok().flatten(),
            keeps_registrations: cache.is_ok_and(|function| !function.is_null()),
            arm: arm.ok().flatten(),
            take_progress: take_progress.ok().flatten(),
            make_progress: make_progress.ok().flatten(),
        };
        Ok(())
    }
}

/// Reads a SOCKET_ADDRESS_LIST out of the buffer it was written to. Everything in it is checked:
/// what lies outside the buffer, or is no address, is left out.
fn address_list(buffer: &[u64]) -> Vec<SocketAddr> {
    let base = buffer.as_ptr().addr();
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let word = |at: usize| {
        bytes
            .get(at..)?
            .first_chunk::<8>()
            .map(|raw| u64::from_ne_bytes(*raw))
    };
    let count = bytes
        .first_chunk::<4>()
        .map_or(0, |raw| i32::from_ne_bytes(*raw));
    let entry = |index: usize| {
        // An 8-byte head, then pairs of pointer and length, 16 bytes each.
        let at = index.checked_mul(16)?.checked_add(8)?;
        let from = usize::try_from(word(at)?).ok()?.checked_sub(base)?;
        let len = bytes.get(at.checked_add(8)?..)?.first_chunk::<4>()?;
        let len = usize::try_from(i32::from_ne_bytes(*len)).ok()?;
        address::parse(bytes.get(from..from.checked_add(len)?)?)
    };
    (0..usize::try_from(count).unwrap_or(0))
        .map_while(|index| {
            // A count beyond the buffer ends the list.
            word(index.checked_mul(16)?.checked_add(16)?).map(|_| entry(index))
        })
        .flatten()
        .collect()
}
