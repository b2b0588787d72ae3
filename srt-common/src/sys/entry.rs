//! The start of a process: C's `main`, argv, the environment, the auxiliary vector.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The `main` of a tool: `srt_common::main!(Spec { name: "srt-ns", … }, run);`
///
/// This is C's main, not Rust's: what Rust's runtime does before `main` (a guard page for the stack, for which glibc
/// reads /proc/self/maps, and handlers that report its overflow) is a tenth of what a stage costs, and a stage starts
/// before every command. [`crate::tool::Tool::run`] does the part that is needed.
#[macro_export]
macro_rules! main {
    ($spec:expr, $body:path) => {
        #[allow(unsafe_code, reason = "the name that the C runtime calls")]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            argc: core::ffi::c_int,
            argv: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            // SAFETY: these are what the C runtime gave to main.
            let args = unsafe { $crate::sys::entry::arguments(argc, argv) };
            $crate::tool::Tool::run($spec, args, $body).into()
        }
    };
}

/// The address of argv\[0\], stored by [`arguments`].
static FIRST_ARGUMENT: AtomicUsize = AtomicUsize::new(0);

/// The words after argv\[0\].
///
/// # Safety
/// `argc` and `argv` are those of `main`.
pub unsafe fn arguments(argc: libc::c_int, argv: *const *const libc::c_char) -> Vec<OsString> {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: argc counts the pointers of argv.
    let words = unsafe { std::slice::from_raw_parts(argv, count) };
    // SAFETY: a pointer in argv points to a C string that lives as long as the process.
    let word = |&word: &*const libc::c_char| unsafe { CStr::from_ptr(word) }.to_bytes();
    FIRST_ARGUMENT.store(words.first().map_or(0, |&first| first as usize), Relaxed);
    words.iter().skip(1).map(|pointer| OsStr::from_bytes(word(pointer)).to_os_string()).collect()
}

/// environ(7) unchanged, including the entries without `=` and the repeated ones, which `std::env` would omit.
pub fn environ() -> Vec<CString> {
    unsafe extern "C" {
        static mut environ: *const *const libc::c_char;
    }
    let mut all = Vec::new();
    // SAFETY: one thread, and nothing in these tools calls setenv(3).
    let mut entry = unsafe { environ };
    // SAFETY: environ is NULL or an array of pointers that ends with NULL, at which the loop ends.
    while let Some(&string) = unsafe { entry.as_ref() }.filter(|string| !string.is_null()) {
        // SAFETY: an entry before the NULL is a C string.
        all.push(unsafe { CStr::from_ptr(string) }.to_owned());
        // SAFETY: the entry was not the NULL at the end, so another one follows.
        entry = unsafe { entry.add(1) };
    }
    all
}

/// getauxval(3). 0 if there is no such value.
pub fn getauxval(kind: libc::c_ulong) -> libc::c_ulong {
    // SAFETY: an integer in, an integer out.
    unsafe { libc::getauxval(kind) }
}

/// Wipes argv and the environment from this process's memory, and replaces argv by `title` for /proc/PID/cmdline.
/// Neither may be read afterwards, and a second call is an error.
///
/// fs/exec.c places argv, the environment and the path of the file next to each other, and AT_EXECFN (getauxval(3))
/// points to the path.
pub fn overwrite_arguments(title: &CStr) -> io::Result<()> {
    let start = FIRST_ARGUMENT.swap(0, Relaxed);
    let end = getauxval(libc::AT_EXECFN) as usize;
    let environment: usize = environ().iter().map(|entry| entry.as_bytes_with_nul().len()).sum();
    let title = title.to_bytes_with_nul();
    if start == 0 || end < start + environment.max(title.len()) {
        return Err(io::Error::other("the stack is not laid out as expected"));
    }
    // SAFETY: between argv[0] and the file's path, the kernel has placed only argv and the environment.
    let area = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) };
    area.fill(0);
    // fs/proc/base.c get_mm_cmdline(): if the last byte of argv is not NUL, argv is a title, which ends at its NUL.
    // Otherwise /proc/PID/cmdline would show one empty argument for each wiped byte.
    if let Some(last) = area.len().checked_sub(environment + 1).and_then(|at| area.get_mut(at)) {
        *last = b'.';
    }
    if let Some(place) = area.get_mut(..title.len()) {
        place.copy_from_slice(title);
    }
    Ok(())
}
