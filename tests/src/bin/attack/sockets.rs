//! Sockets, by every way to make one.

use crate::sys::{descriptor, sys};
use crate::{Outcome, number};
use libc::{AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null;

pub fn attack(words: &[&str]) -> Option<Outcome> {
    Some(match *words {
        // Numbers are passed as 64-bit words, garbage included.
        ["socket", family, kind] => {
            sys!(libc::SYS_socket, number(family), number(kind), 0).map(|_| "made".into())
        }
        ["socketpair", family, kind] => pair(number(family), number(kind)).map(|_| "made".into()),
        #[cfg(target_arch = "x86_64")]
        ["socket-int80", family, kind] => {
            int80(359, number(family) as u32, number(kind) as u32).map(|_| "made".into())
        }
        #[cfg(target_arch = "x86_64")]
        ["socketcall-int80"] => socketcall().map(|_| "made".into()),
        ["socket-x32", family, kind] => {
            sys!(libc::SYS_socket | 0x4000_0000, number(family), number(kind), 0).map(|_| "made".into())
        }
        ["socket-uring", family, kind] => uring(number(family) as i32, number(kind)).map(|_| "made".into()),
        ["uring-setup"] => {
            let mut params = [0_u32; 30];
            sys!(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()).map(|_| "made".into())
        }

        ["connect-unix", path] => connect_unix(SOCK_STREAM, path.as_bytes()),
        ["connect-abstract", name] => connect_unix(SOCK_STREAM, &[b"\0", name.as_bytes()].concat()),
        ["send-unix", path] => sys!(libc::SYS_socket, AF_UNIX, SOCK_DGRAM, 0)
            .map(descriptor)
            .and_then(|socket| send_to(&socket, path)),
        // One end of a pair speaks to whoever has a name.
        ["pair-send", kind, path] => {
            pair(AF_UNIX as u64, number(kind)).and_then(|(one, _other)| send_to(&one, path))
        }
        ["connect-tcp", port] => connect(AF_INET, &inet(port), SOCK_STREAM),
        ["send-udp", port] => {
            sys!(libc::SYS_socket, AF_INET, SOCK_DGRAM, 0).map(descriptor).and_then(|socket| {
                let address = inet(port);
                sys!(
                    libc::SYS_sendto,
                    socket.as_raw_fd(),
                    c"OWNED".as_ptr(),
                    5,
                    0,
                    address.as_ptr(),
                    address.len()
                )
                .map(|_| "sent".into())
            })
        }
        ["packet"] => sys!(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0x0300).map(|_| "made".into()),
        ["raw"] => sys!(libc::SYS_socket, AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).map(|_| "made".into()),
        // All interfaces but lo, from netlink's older sister.
        ["interfaces"] => {
            let all = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
            let names = all.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
            let names: Vec<_> = names.filter(|name| *name != "lo").collect();
            match names.is_empty() {
                true => Err(io::Error::from_raw_os_error(libc::ENODEV)),
                false => Ok(names.join(" ")),
            }
        }
        // A listener that says so, and takes one connection or datagram: not an attack but its target.
        ["listen-unix", path] => listen(path.as_bytes(), SOCK_STREAM),
        ["listen-abstract", name] => listen(&[b"\0", name.as_bytes()].concat(), SOCK_STREAM),
        _ => return None,
    })
}

fn pair(family: u64, kind: u64) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0_i32; 2];
    sys!(libc::SYS_socketpair, family, kind, 0, ends.as_mut_ptr())?;
    Ok((descriptor(ends[0].into()), descriptor(ends[1].into())))
}

/// `struct sockaddr_un`, as long as it needs to be.
fn unix(path: &[u8]) -> Vec<u8> {
    let mut address = (AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(path);
    address
}

/// `struct sockaddr_in` of 127.0.0.1.
fn inet(port: &str) -> Vec<u8> {
    let mut address = (AF_INET as u16).to_ne_bytes().to_vec();
    address.extend((number(port) as u16).to_be_bytes());
    address.extend([127, 0, 0, 1]);
    address.extend([0; 8]);
    address
}

fn connect(family: i32, address: &[u8], kind: i32) -> Outcome {
    let socket = descriptor(sys!(libc::SYS_socket, family, kind, 0)?);
    sys!(libc::SYS_connect, socket.as_raw_fd(), address.as_ptr(), address.len()).map(|_| "connected".into())
}

fn connect_unix(kind: i32, path: &[u8]) -> Outcome {
    connect(AF_UNIX, &unix(path), kind)
}

fn send_to(socket: &OwnedFd, path: &str) -> Outcome {
    let address = unix(path.as_bytes());
    sys!(libc::SYS_sendto, socket.as_raw_fd(), c"OWNED".as_ptr(), 5, 0, address.as_ptr(), address.len())
        .map(|_| "sent".into())
}

fn listen(path: &[u8], kind: i32) -> Outcome {
    let socket = descriptor(sys!(libc::SYS_socket, AF_UNIX, kind, 0)?);
    let address = unix(path);
    sys!(libc::SYS_bind, socket.as_raw_fd(), address.as_ptr(), address.len())?;
    sys!(libc::SYS_listen, socket.as_raw_fd(), 5)?;
    println!("listening");
    let _one = sys!(libc::SYS_accept4, socket.as_raw_fd(), null::<u8>(), null::<u8>(), 0)?;
    Ok("somebody came".into())
}

/// A system call of i386, by its number there.
#[cfg(target_arch = "x86_64")]
fn int80(call: u32, first: u32, second: u32) -> io::Result<i64> {
    let answer: i32;
    // SAFETY: the call takes integers or, for socketcall, an address below 4 GiB. rbx is LLVM's own, so it is
    // put back. Old kernels zeroed r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first:r}", "int 0x80", "xchg rbx, {first:r}",
            first = inout(reg) u64::from(first) => _,
            inout("eax") call as i32 => answer, in("ecx") second, in("edx") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { Ok(answer.into()) }
}

/// socketcall(2): its arguments are in memory, where no filter looks.
#[cfg(target_arch = "x86_64")]
fn socketcall() -> io::Result<i64> {
    let (flags, prot) =
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT, libc::PROT_READ | libc::PROT_WRITE);
    let page = sys!(libc::SYS_mmap, null::<u8>(), 4096, prot, flags, -1, 0)? as *mut u32;
    let args = [AF_UNIX as u32, SOCK_STREAM as u32, 0];
    // SAFETY: a page that was just mapped.
    unsafe { page.copy_from_nonoverlapping(args.as_ptr(), 3) };
    int80(102, 1 /* SYS_SOCKET */, page as u32)
}

/// IORING_OP_SOCKET: the kernel's worker makes the socket, and no filter sees a system call.
fn uring(family: i32, kind: u64) -> io::Result<i64> {
    const OP_SOCKET: u8 = 45;
    // struct io_uring_params: 10 words, then the offsets of the two rings, 10 words each.
    let mut params = [0_u32; 30];
    let ring = sys!(libc::SYS_io_uring_setup, 4, params.as_mut_ptr())?;
    let (sq, cq) = (&params[10..20], &params[20..30]);
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    let map =
        |length: usize, offset: i64| sys!(libc::SYS_mmap, null::<u8>(), length, prot, flags, ring, offset);
    // IORING_FEAT_SINGLE_MMAP: both rings in one mapping.
    let rings = map(8192, 0)? as *mut u8;
    let entries = map(4096, 0x1000_0000)? as *mut u8;
    let mut entry = [0_u8; 64];
    entry[0] = OP_SOCKET;
    entry[4..8].copy_from_slice(&family.to_ne_bytes()); // fd: the domain
    entry[8..16].copy_from_slice(&kind.to_ne_bytes()); // off: the type
    // SAFETY: offsets that the kernel told, in the mappings that it made.
    let result = unsafe {
        entries.copy_from_nonoverlapping(entry.as_ptr(), 64);
        rings.add(sq[6] as usize).cast::<u32>().write_volatile(0); // array[0]
        rings.add(sq[1] as usize).cast::<u32>().write_volatile(1); // tail
        sys!(libc::SYS_io_uring_enter, ring, 1, 1, 1 /* IORING_ENTER_GETEVENTS */, null::<u8>(), 0)?;
        rings.add(cq[5] as usize + 8).cast::<i32>().read_volatile() // cqes[0].res
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result.into()) }
}
