//! Memory for a stage, which lives for a millisecond: from one fixed piece, where the C library would ask the kernel for
//! pages a dozen times, and give them back (musl), or map a heap (glibc). What does not fit is the C library's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes. Pages of it that are never used are never there.
const SIZE: usize = 256 * 1024;

/// Bytes. What is larger is the C library's, so that a long argument leaves room for the message that is to be made behind
/// a filter that allows no more system calls than that needs.
const LARGEST: usize = SIZE / 16;

/// The allocator of a stage: `#[global_allocator] static MEMORY: Piece = Piece::new();`
///
/// It gives out the piece from its beginning to its end, and takes back only what was given out last.
#[derive(Debug)]
pub struct Piece {
    bytes: UnsafeCell<[u8; SIZE]>,
    taken: AtomicUsize,
}

// SAFETY: a stage has one thread (a test program has no such allocator).
unsafe impl Sync for Piece {}

impl Piece {
    /// All of it free.
    #[allow(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; SIZE]), taken: AtomicUsize::new(0) }
    }

    /// Where in the piece `pointer` is. `None`: it is the C library's.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        (pointer as usize).checked_sub(self.bytes.get() as usize).filter(|&offset| offset < SIZE)
    }
}

// SAFETY: no two allocations that are alive share a byte: each starts where the one before it ends, or later, and `taken`
// goes back only to the start of the last one, when that is given back.
unsafe impl GlobalAlloc for Piece {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.bytes.get() as usize;
        let start = (base + self.taken.load(Relaxed)).next_multiple_of(layout.align()) - base;
        match start.checked_add(layout.size()) {
            Some(end) if end <= SIZE && layout.size() <= LARGEST => {
                self.taken.store(end, Relaxed);
                // SAFETY: `start` is at most `end`, which is within the piece.
                unsafe { self.bytes.get().cast::<u8>().add(start) }
            }
            // SAFETY: the layout is the caller's.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            Some(start) if start + layout.size() == self.taken.load(Relaxed) => {
                self.taken.store(start, Relaxed)
            }
            Some(_) => {}
            // free(3) would give pages back to the kernel, by a call that a loaded filter may not allow.
            None if layout.size() > LARGEST => {}
            // SAFETY: it came from there, with this layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    fn what_is_given_out_is_apart_aligned_and_comes_back_in_reverse() {
        let piece = Box::new(Piece::new());
        // SAFETY: sizes above 0.
        let [one, two] = [layout(3, 1), layout(8, 64)].map(|layout| unsafe { piece.alloc(layout) });
        assert_eq!(two as usize % 64, 0);
        assert!(two as usize >= one as usize + 3);
        // SAFETY: given out above.
        unsafe { piece.dealloc(one, layout(3, 1)) };
        let taken = piece.taken.load(Relaxed);
        // SAFETY: given out above.
        unsafe { piece.dealloc(two, layout(8, 64)) };
        assert!(piece.taken.load(Relaxed) < taken);
    }

    #[test]
    fn what_does_not_fit_is_the_c_librarys() {
        let piece = Box::new(Piece::new());
        for size in [LARGEST + 1, usize::MAX / 4] {
            // SAFETY: a size above 0.
            let pointer = unsafe { piece.alloc(layout(size, 16)) };
            assert_eq!(piece.offset(pointer), None);
            if !pointer.is_null() {
                // SAFETY: given out above.
                unsafe { piece.dealloc(pointer, layout(size, 16)) };
            }
        }
    }
}
