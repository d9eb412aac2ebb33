//! Atomic instructions. Rust's own atomics have no read-modify-write operations on this target, although the machine has them.

use core::arch::asm;

/// Adds to a sum that several CPUs share.
///
/// # Safety
///
/// `sum` points to an aligned, valid `u64`.
#[inline(always)]
pub unsafe fn add(sum: *mut u64, value: u64) {
    // SAFETY: one instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({sum} + 0) += {value}", sum = in(reg) sum, value = in(reg) value) };
}

/// Sets bits in a word that several CPUs share.
///
/// # Safety
///
/// `word` points to an aligned, valid `u64`.
#[inline(always)]
pub unsafe fn or(word: *mut u64, bits: u64) {
    // SAFETY: one instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(reg) bits) };
}

/// As [`add`], of 32 bits.
///
/// # Safety
///
/// `sum` points to an aligned, valid `u32`.
#[inline(always)]
pub unsafe fn add32(sum: *mut u32, value: u32) {
    // SAFETY: one instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u32 *)({sum} + 0) += {value}", sum = in(reg) sum, value = in(reg) u64::from(value)) };
}

/// As [`or`], of 32 bits.
///
/// # Safety
///
/// `word` points to an aligned, valid `u32`.
#[inline(always)]
pub unsafe fn or32(word: *mut u32, bits: u32) {
    // SAFETY: one instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u32 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(wreg) bits) };
}
