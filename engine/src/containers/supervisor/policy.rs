//! Whether a container whose program ended is started again, and when: Docker's rules.

use std::time::Duration;

use crate::containers::state::Wish;
use crate::run::Restart;

/// The first pause before a start; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A program that ran so long is well again: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(10);

/// What follows the end of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    End,
    /// A start after the pause.
    Pause,
    /// A start at once, because somebody asked for it.
    AtOnce,
}

/// Decides.
pub(super) fn next(policy: Restart, wish: Option<Wish>, code: u8, restarts: u32) -> Next {
    match (wish, policy) {
        (Some(Wish::Stop), _) => Next::End,
        (Some(Wish::Restart), _) => Next::AtOnce,
        (None, Restart::Always | Restart::UnlessStopped) => Next::Pause,
        (None, Restart::OnFailure(most)) if code != 0 && most.is_none_or(|most| restarts < most) => {
            Next::Pause
        }
        (None, Restart::OnFailure(_) | Restart::No) => Next::End,
    }
}

/// The pause before the next start, after a program ran for `ran` and a pause of `last`.
pub(super) fn pause(last: Duration, ran: Duration) -> Duration {
    if last.is_zero() || ran >= STEADY { FIRST_PAUSE } else { (last * 2).min(LONGEST_PAUSE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_dockers() {
        for (policy, wish, code, restarts, expected) in [
            (Restart::No, None, 1, 0, Next::End),
            (Restart::Always, None, 0, 9, Next::Pause),
            (Restart::Always, Some(Wish::Stop), 0, 9, Next::End),
            (Restart::UnlessStopped, None, 1, 0, Next::Pause),
            (Restart::OnFailure(None), None, 0, 0, Next::End),
            (Restart::OnFailure(None), None, 1, 99, Next::Pause),
            (Restart::OnFailure(Some(2)), None, 1, 1, Next::Pause),
            (Restart::OnFailure(Some(2)), None, 1, 2, Next::End),
            (Restart::No, Some(Wish::Restart), 0, 0, Next::AtOnce),
        ] {
            assert_eq!(next(policy, wish, code, restarts), expected, "{policy:?} {wish:?} {code} {restarts}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew() {
        let short = Duration::from_secs(1);
        let mut last = Duration::ZERO;
        let mut all = Vec::new();
        for _ in 0..12 {
            last = pause(last, short);
            all.push(last.as_millis());
        }
        assert_eq!(all, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(pause(last, STEADY), FIRST_PAUSE);
    }
}
