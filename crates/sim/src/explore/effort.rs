//! How much of a world is looked at.

/// How much of a world is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Crash states at one point, at each depth: beyond it they are sampled.
    pub limits: [usize; 3],
    /// The same after a kill or an error.
    pub after_fault: usize,
    /// One in so many of the states at depth 1 and 2 is looked into for crashes of its recovery.
    pub nested_one_in: [u64; 2],
    /// One in so many recoveries meets an error.
    pub recoveries_disturbed_one_in: u64,
    /// At one in so many calls, and crash states, another process takes access from something.
    pub closed_one_in: [u64; 2],
    /// Distinct states of one world after which it is only sampled: limits are an eighth, recoveries are no longer crashed, and
    /// hardly any meets an error, or what access was taken from.
    pub budget: u64,
    /// One in so many errors is put into the calls; 1 is every error of every call.
    pub errors_one_in: u64,
}

impl Effort {
    const NEVER: [u64; 2] = [u64::MAX; 2];
    const NOW_AND_THEN: [u64; 2] = [4, 32];
    pub const FULL: Self = Self {
        limits: [1024, 128, 32],
        after_fault: 32,
        nested_one_in: [4, 16],
        recoveries_disturbed_one_in: 32,
        closed_one_in: Self::NOW_AND_THEN,
        budget: 20_000,
        errors_one_in: 8,
    };
    /// Few worlds, with an error in every recovery.
    pub const TELLING: Self = Self {
        limits: [96, 24, 8],
        after_fault: 8,
        nested_one_in: [8, 16],
        recoveries_disturbed_one_in: 1,
        closed_one_in: Self::NEVER,
        budget: 1_000,
        errors_one_in: 24,
    };
    /// The same in a test that has not been optimized.
    pub const TELLING_SLICE: Self = Self {
        errors_one_in: 128,
        budget: 300,
        nested_one_in: [16, 16],
        recoveries_disturbed_one_in: 8,
        closed_one_in: Self::NEVER,
        ..Self::TELLING
    };
    /// Many worlds, next to nothing of each.
    pub const SKIM: Self = Self {
        limits: [64, 16, 8],
        after_fault: 8,
        nested_one_in: [8, 16],
        recoveries_disturbed_one_in: 4,
        closed_one_in: Self::NEVER,
        budget: 300,
        errors_one_in: 32,
    };
    pub const SLICE: Self = Self {
        limits: [128, 32, 16],
        after_fault: 8,
        nested_one_in: [16, 16],
        recoveries_disturbed_one_in: 8,
        closed_one_in: Self::NOW_AND_THEN,
        budget: 2_000,
        errors_one_in: 64,
    };

    /// The same, and access is taken now and then. Where mutants are looked for it is not: it uses up what is looked at.
    #[must_use]
    pub const fn taking_access(self) -> Self {
        Self { closed_one_in: Self::NOW_AND_THEN, ..self }
    }
}
