//! The calls that the supervisor is asked about, for each kind of program that the machine runs, and the filter that asks.
//!
//! Invariants:
//! 1. Whatever can remove, make or rename a directory is asked about, or does not exist: `io_uring`, which could do all of it past a filter,
//!    and the x32 kind of call say ENOSYS, upon which programs use others.
//! 2. A call is asked about for its number, and a flag in a register. What memory says the filter cannot see.

use libc::{BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

/// What a call does, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Rmdir,
    /// Removes a file, which an output that is gone is not either.
    Unlink,
    UnlinkAt,
    Mkdir,
    MkdirAt,
    Rename,
    RenameAt,
    RenameAt2,
    /// Its argument is looked at: an output that is gone is not there.
    Look,
    LookAt,
    Open,
    OpenAt,
    /// As `Look` and `LookAt`, where a cover does not see to it.
    Stat,
    StatAt,
    Unmount,
    /// A process gives up rights in a way that cannot be seen from outside.
    Restrict,
}

/// The x86-64 calls with pointers of 32 bits have this bit.
const X32: u32 = 0x4000_0000;

struct Abi {
    audit: u32,
    has_x32: bool,
    calls: &'static [(u32, Call)],
}

#[cfg(target_arch = "x86_64")]
const ABIS: &[Abi] = &[
    Abi {
        audit: 0xc000_003e,
        has_x32: true,
        calls: &[
            (84, Call::Rmdir),
            (87, Call::Unlink),
            (263, Call::UnlinkAt),
            (83, Call::Mkdir),
            (258, Call::MkdirAt),
            (82, Call::Rename),
            (264, Call::RenameAt),
            (316, Call::RenameAt2),
            (21, Call::Look),
            (80, Call::Look),
            (269, Call::LookAt),
            (439, Call::LookAt),
            (437, Call::LookAt),
            (2, Call::Open),
            (257, Call::OpenAt),
            (4, Call::Stat),
            (6, Call::Stat),
            (262, Call::StatAt),
            (332, Call::StatAt),
            (166, Call::Unmount),
            (446, Call::Restrict),
        ],
    },
    Abi {
        audit: 0x4000_0003,
        has_x32: false,
        calls: &[
            (40, Call::Rmdir),
            (10, Call::Unlink),
            (301, Call::UnlinkAt),
            (39, Call::Mkdir),
            (296, Call::MkdirAt),
            (38, Call::Rename),
            (302, Call::RenameAt),
            (353, Call::RenameAt2),
            (33, Call::Look),
            (12, Call::Look),
            (307, Call::LookAt),
            (439, Call::LookAt),
            (437, Call::LookAt),
            (5, Call::Open),
            (295, Call::OpenAt),
            (106, Call::Stat),
            (107, Call::Stat),
            (195, Call::Stat),
            (196, Call::Stat),
            (300, Call::StatAt),
            (383, Call::StatAt),
            (22, Call::Unmount),
            (52, Call::Unmount),
            (446, Call::Restrict),
        ],
    },
];

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const GENERIC: &[(u32, Call)] = &[
    (35, Call::UnlinkAt),
    (34, Call::MkdirAt),
    (38, Call::RenameAt),
    (276, Call::RenameAt2),
    (48, Call::LookAt),
    (439, Call::LookAt),
    (437, Call::LookAt),
    (49, Call::Look),
    (56, Call::OpenAt),
    (79, Call::StatAt),
    (291, Call::StatAt),
    (39, Call::Unmount),
    (446, Call::Restrict),
];

#[cfg(target_arch = "aarch64")]
const ABIS: &[Abi] = &[
    Abi { audit: 0xc000_00b7, has_x32: false, calls: GENERIC },
    Abi {
        audit: 0x4000_0028,
        has_x32: false,
        calls: &[
            (40, Call::Rmdir),
            (10, Call::Unlink),
            (328, Call::UnlinkAt),
            (39, Call::Mkdir),
            (323, Call::MkdirAt),
            (38, Call::Rename),
            (329, Call::RenameAt),
            (382, Call::RenameAt2),
            (33, Call::Look),
            (12, Call::Look),
            (334, Call::LookAt),
            (439, Call::LookAt),
            (437, Call::LookAt),
            (5, Call::Open),
            (322, Call::OpenAt),
            (106, Call::Stat),
            (107, Call::Stat),
            (195, Call::Stat),
            (196, Call::Stat),
            (327, Call::StatAt),
            (397, Call::StatAt),
            (52, Call::Unmount),
            (446, Call::Restrict),
        ],
    },
];

#[cfg(target_arch = "riscv64")]
const ABIS: &[Abi] = &[Abi { audit: 0xc000_00f3, has_x32: false, calls: GENERIC }];

/// Nothing is known of the calls of other machines.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const ABIS: &[Abi] = &[];

/// `io_uring_setup`, `io_uring_enter`, `io_uring_register`: the same numbers everywhere.
const URING: [u32; 3] = [425, 426, 427];

/// Whether the calls of this machine are known.
pub(crate) const fn is_known_machine() -> bool {
    !ABIS.is_empty()
}

/// What a call that arrived is.
pub(crate) fn find(arch: u32, nr: i32) -> Option<Call> {
    let abi = ABIS.iter().find(|abi| abi.audit == arch)?;
    let nr = u32::try_from(nr).ok()?;
    abi.calls.iter().find(|(number, _)| *number == nr).map(|(_, call)| *call)
}

/// What `unlinkat` removes directories by.
pub(crate) const REMOVE_DIR: u32 = libc::AT_REMOVEDIR.cast_unsigned();

/// What an argument, by its number, has to be.
#[derive(Debug, Clone, Copy)]
enum Condition {
    /// It has any of these bits.
    Has(u32, u32),
    /// It is this number.
    Is(u32, u32),
}

impl Call {
    /// The filter asks about a call if one of these holds, or if there are none.
    fn conditions(self) -> &'static [Condition] {
        // The same on all machines that are known here.
        const OPEN_PATH: u32 = 0o10_000_000;
        const DIRECTORY: u32 = libc::O_DIRECTORY.cast_unsigned();
        const HERE: u32 = libc::AT_FDCWD.cast_unsigned();
        match self {
            // A tool that removes a tree opens its directories and names files in them: to ask about each would cost it time.
            Self::UnlinkAt => &[Condition::Has(2, REMOVE_DIR), Condition::Is(0, HERE)],
            Self::Open => &[Condition::Has(1, OPEN_PATH | DIRECTORY)],
            Self::OpenAt => &[Condition::Has(2, OPEN_PATH | DIRECTORY)],
            _ => &[],
        }
    }

    fn is_asked(self, stats: bool) -> bool {
        stats || !matches!(self, Self::Stat | Self::StatAt)
    }
}

/// The filter. With `stats` it also asks about what only looks.
pub(crate) fn program(stats: bool) -> Vec<sock_filter> {
    const ARCH: u32 = 4;
    let mut program = vec![load(ARCH)];
    for abi in ABIS {
        let section = section(abi, stats);
        program.push(jump(BPF_JEQ, abi.audit, 1, 0));
        program.push(jump(BPF_JA, u32::try_from(section.len()).unwrap_or(u32::MAX), 0, 0));
        program.extend(section);
    }
    program.push(missing());
    program
}

fn section(abi: &Abi, stats: bool) -> Vec<sock_filter> {
    const NUMBER: u32 = 0;
    let mut section = vec![load(NUMBER)];
    if abi.has_x32 {
        section.extend([jump(BPF_JGE, X32, 0, 1), missing()]);
    }
    for (nr, call) in abi.calls.iter().filter(|(_, call)| call.is_asked(stats)) {
        let conditions = match call {
            Call::Open | Call::OpenAt if stats => &[],
            call => call.conditions(),
        };
        section.extend(of_call(*nr, conditions));
    }
    for nr in URING {
        section.extend([jump(BPF_JEQ, nr, 0, 1), missing()]);
    }
    section.push(allow());
    section
}

/// The part of the filter that is about one call.
fn of_call(nr: u32, conditions: &[Condition]) -> Vec<sock_filter> {
    let mut asked = Vec::new();
    for condition in conditions {
        // The lower half, on machines that put it first.
        let (argument, kind, value) = match *condition {
            Condition::Has(argument, flag) => (argument, BPF_JSET, flag),
            Condition::Is(argument, value) => (argument, BPF_JEQ, value),
        };
        asked.extend([load(16 + 8 * argument), jump(kind, value, 0, 1), ask()]);
    }
    asked.push(if conditions.is_empty() { ask() } else { allow() });
    let skipped = u8::try_from(asked.len()).unwrap_or(u8::MAX);
    asked.insert(0, jump(BPF_JEQ, nr, 0, skipped));
    asked
}

fn code(parts: &[u32]) -> u16 {
    u16::try_from(parts.iter().fold(0, |code, part| code | part)).unwrap_or_default()
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: code(&[BPF_LD, BPF_W, BPF_ABS]), jt: 0, jf: 0, k: offset }
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code(&[BPF_JMP, kind, BPF_K]), jt, jf, k }
}

fn give(value: u32) -> sock_filter {
    sock_filter { code: code(&[BPF_RET, BPF_K]), jt: 0, jf: 0, k: value }
}

fn ask() -> sock_filter {
    give(libc::SECCOMP_RET_USER_NOTIF)
}

fn allow() -> sock_filter {
    give(libc::SECCOMP_RET_ALLOW)
}

/// As a kernel that does not have the call.
fn missing() -> sock_filter {
    give(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call.
    fn run(program: &[sock_filter], arch: u32, nr: u32, args: [u32; 6]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code: op, jt, jf, k } = program[at];
            let op = u32::from(op);
            at += 1;
            let mut go = |to: bool| at += usize::from(if to { jt } else { jf });
            if op == BPF_LD | BPF_W | BPF_ABS {
                value = match k {
                    0 => nr,
                    4 => arch,
                    offset => args[(offset as usize - 16) / 8],
                };
            } else if op == BPF_JMP | BPF_JA {
                at += k as usize;
            } else if op == BPF_JMP | BPF_JEQ {
                go(value == k);
            } else if op == BPF_JMP | BPF_JGE {
                go(value >= k);
            } else if op == BPF_JMP | BPF_JSET {
                go(value & k != 0);
            } else {
                return k;
            }
        }
    }

    const NO: [u32; 6] = [0; 6];
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn every_kind_of_program_is_asked_about_the_same_calls() {
        for stats in [false, true] {
            let program = program(stats);
            for abi in ABIS {
                for (nr, call) in abi.calls {
                    let mut args = NO;
                    for condition in call.conditions() {
                        let plain = run(&program, abi.audit, *nr, NO);
                        let always = stats && *call != Call::UnlinkAt;
                        let expected = if always { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
                        assert_eq!(plain, expected, "{call:?}");
                        let (Condition::Has(argument, value) | Condition::Is(argument, value)) = *condition;
                        args = NO;
                        args[argument as usize] = value;
                        let asked = run(&program, abi.audit, *nr, args);
                        assert_eq!(asked, libc::SECCOMP_RET_USER_NOTIF, "{call:?} {condition:?}");
                    }
                    let expected = match call.is_asked(stats) {
                        true => libc::SECCOMP_RET_USER_NOTIF,
                        false => libc::SECCOMP_RET_ALLOW,
                    };
                    assert_eq!(run(&program, abi.audit, *nr, args), expected, "{call:?}");
                    assert_eq!(find(abi.audit, (*nr).try_into().unwrap()), Some(*call));
                }
                for nr in URING {
                    assert_eq!(run(&program, abi.audit, nr, NO), ENOSYS);
                }
                // getpid-like calls, and one that no kernel has.
                for nr in [172, 1000, 0x3fff_ffff] {
                    assert_eq!(run(&program, abi.audit, nr, NO), libc::SECCOMP_RET_ALLOW);
                }
            }
            assert_eq!(run(&program, 0x1234, 0, NO), ENOSYS, "an unknown kind of program");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls_of_the_x32_kind_do_not_exist() {
        for nr in [X32 | 84, X32 | 82, X32 | 39, u32::MAX] {
            assert_eq!(run(&program(false), ABIS[0].audit, nr, NO), ENOSYS);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_numbers_are_the_systems() {
        for (number, call) in [
            (libc::SYS_rmdir, Call::Rmdir),
            (libc::SYS_unlink, Call::Unlink),
            (libc::SYS_unlinkat, Call::UnlinkAt),
            (libc::SYS_mkdir, Call::Mkdir),
            (libc::SYS_mkdirat, Call::MkdirAt),
            (libc::SYS_rename, Call::Rename),
            (libc::SYS_renameat, Call::RenameAt),
            (libc::SYS_renameat2, Call::RenameAt2),
            (libc::SYS_access, Call::Look),
            (libc::SYS_chdir, Call::Look),
            (libc::SYS_faccessat, Call::LookAt),
            (libc::SYS_faccessat2, Call::LookAt),
            (libc::SYS_openat2, Call::LookAt),
            (libc::SYS_open, Call::Open),
            (libc::SYS_openat, Call::OpenAt),
            (libc::SYS_stat, Call::Stat),
            (libc::SYS_lstat, Call::Stat),
            (libc::SYS_newfstatat, Call::StatAt),
            (libc::SYS_statx, Call::StatAt),
            (libc::SYS_umount2, Call::Unmount),
            (446, Call::Restrict),
        ] {
            assert_eq!(find(ABIS[0].audit, i32::try_from(number).unwrap()), Some(call));
        }
        assert_eq!(
            URING.map(i64::from),
            [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register]
        );
    }
}
