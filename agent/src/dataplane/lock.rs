//! Locks of the planes.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it, also after a panic of a thread that had it: forwarding of other bonds must not end with that of one.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
