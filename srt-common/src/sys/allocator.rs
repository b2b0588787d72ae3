//! The memory of a stage, which runs for a millisecond, comes from one fixed block: the C library would ask the kernel
//! for pages a dozen times and return them (musl), or map a heap (glibc). What does not fit is left to the C library.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// In bytes. Pages that are never used are never allocated.
const SIZE: usize = 256 * 1024;

/// In bytes. Larger requests go to the C library, so that a long argument leaves room for a message that must be built
/// under a filter that allows only the system calls needed for it.
const LARGEST: usize = SIZE / 16;

/// The allocator of a stage: `#[global_allocator] static MEMORY: BumpAllocator = BumpAllocator::new();`
///
/// It allocates from the beginning of the block to its end, and frees only the last allocation.
#[derive(Debug)]
pub struct BumpAllocator {
    bytes: UnsafeCell<[u8; SIZE]>,
    taken: AtomicUsize,
}

// SAFETY: a stage has one thread (a test program does not have this allocator).
unsafe impl Sync for BumpAllocator {}

impl BumpAllocator {
    /// A block that is entirely free.
    #[allow(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; SIZE]), taken: AtomicUsize::new(0) }
    }

    /// The offset of `pointer` in the block. `None`: it is the C library's.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        (pointer as usize).checked_sub(self.bytes.get() as usize).filter(|&offset| offset < SIZE)
    }
}

// SAFETY: no two live allocations share a byte: each starts where the one before it ends, or later, and `taken` goes
// back only to the start of the last one, when that is freed.
unsafe impl GlobalAlloc for BumpAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.bytes.get() as usize;
        let start = (base + self.taken.load(Relaxed)).next_multiple_of(layout.align()) - base;
        match start.checked_add(layout.size()) {
            Some(end) if end <= SIZE && layout.size() <= LARGEST => {
                self.taken.store(end, Relaxed);
                // SAFETY: `start` is at most `end`, which is within the block.
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
            // free(3) would return pages to the kernel, by a call that a loaded filter may not allow.
            None if layout.size() > LARGEST => {}
            // SAFETY: the C library allocated it, with this layout.
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
        let allocator = Box::new(BumpAllocator::new());
        // SAFETY: sizes above 0.
        let [one, two] = [layout(3, 1), layout(8, 64)].map(|layout| unsafe { allocator.alloc(layout) });
        assert_eq!(two as usize % 64, 0);
        assert!(two as usize >= one as usize + 3);
        // SAFETY: allocated above.
        unsafe { allocator.dealloc(one, layout(3, 1)) };
        let taken = allocator.taken.load(Relaxed);
        // SAFETY: allocated above.
        unsafe { allocator.dealloc(two, layout(8, 64)) };
        assert!(allocator.taken.load(Relaxed) < taken);
    }

    #[test]
    fn what_does_not_fit_is_the_c_librarys() {
        let allocator = Box::new(BumpAllocator::new());
        for size in [LARGEST + 1, usize::MAX / 4] {
            // SAFETY: a size above 0.
            let pointer = unsafe { allocator.alloc(layout(size, 16)) };
            assert_eq!(allocator.offset(pointer), None);
            if !pointer.is_null() {
                // SAFETY: allocated above.
                unsafe { allocator.dealloc(pointer, layout(size, 16)) };
            }
        }
    }
}
