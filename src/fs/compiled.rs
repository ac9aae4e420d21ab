//! The engine for [`LinuxFs`](super::LinuxFs), as it is compiled with the library.
//!
//! A program compiles anew, each time that it changes itself, what it uses of what is generic over an [`Fs`](super::Fs): most of the
//! engine. So where a call enters the engine on the kernel's own files ([`Fs::IS_COMPILED`](super::Fs::IS_COMPILED)) it goes by a function
//! that is not generic, and so was compiled with the library; and the compiler leaves the other way out of the program.
//!
//! Invariant: both ways do the same.

use std::any::Any;

/// A value whose type is called otherwise here.
pub(crate) fn same<A: 'static, B: 'static>(value: A) -> B {
    let mut value = Some(value);
    let same = (&mut value as &mut dyn Any).downcast_mut::<Option<B>>().and_then(Option::take);
    same.expect("IS_COMPILED is true of LinuxFs alone")
}

/// As [`same`], of what is borrowed.
pub(crate) fn same_ref<A: 'static, B: 'static>(value: &A) -> &B {
    (value as &dyn Any).downcast_ref().expect("IS_COMPILED is true of LinuxFs alone")
}

/// As [`same`], of what is borrowed to be changed.
pub(crate) fn same_mut<A: 'static, B: 'static>(value: &mut A) -> &mut B {
    (value as &mut dyn Any).downcast_mut().expect("IS_COMPILED is true of LinuxFs alone")
}

/// Returns what `$body` does for [`LinuxFs`](super::LinuxFs), where `$fs` is that.
macro_rules! compiled {
    ($fs:ty, ($($arg:ident: $type:ty = $value:expr),*) -> $result:ty { $body:expr }) => {
        if <$fs as $crate::fs::Fs>::IS_COMPILED {
            #[inline(never)]
            fn compiled($($arg: $type),*) -> $result {
                $body
            }
            return $crate::fs::compiled::same(compiled($($value),*));
        }
    };
}

pub(crate) use compiled;
