//! How much memory the allocator keeps that nothing uses.

/// Has the allocator give memory back as soon as enough of it is free at the end of a heap. Without this glibc keeps the more, the
/// larger the largest block was that was ever freed, and what is read once at a start is large: option files, programs, the types of
/// the kernel. [mallopt(3): M_TRIM_THRESHOLD]
pub fn give_back_what_is_free() {
    #[cfg(target_env = "gnu")]
    for threshold in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
        // SAFETY: sets a parameter of the allocator.
        unsafe { libc::mallopt(threshold, FREE_AT_MOST) };
    }
}

/// Gives back what is free anywhere in the heaps, after work that needed much at once.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// In bytes; glibc's own value at first.
#[cfg(target_env = "gnu")]
const FREE_AT_MOST: libc::c_int = 128 << 10;
