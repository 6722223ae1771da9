//! How long to wait before trying again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::options::RetryPolicy;

/// The waits of one operation.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Starts to count anew: there was progress.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, as long as the server asked, else by our own count. False,
    /// without waiting, if there is no attempt left or the server asks for too much.
    pub(crate) async fn wait(&mut self, asked: Option<Duration>) -> bool {
        let Some(time) = self.next(asked) else { return false };
        tokio::time::sleep(time).await;
        true
    }

    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.failures >= self.policy.retries {
            return None;
        }
        let doubled = self.policy.base.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures += 1;
        match asked {
            Some(time) if time > self.policy.retry_after_cap => None,
            Some(time) => Some(time + jitter(self.policy.base)),
            None => {
                let time = doubled.min(self.policy.cap);
                Some(time.saturating_sub(jitter(time / 2)))
            }
        }
    }
}

/// A random time below `limit`. The standard library seeds each `RandomState` anew, which is random
/// enough to keep clients apart.
fn jitter(limit: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
    limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_obey_the_server() {
        let policy = RetryPolicy {
            retries: 4,
            base: Duration::from_millis(100),
            cap: Duration::from_millis(300),
            retry_after_cap: Duration::from_secs(5),
        };
        let mut backoff = Backoff::new(policy);
        for limit in [100, 200, 300, 300] {
            let time = backoff.next(None).unwrap();
            let limit = Duration::from_millis(limit);
            assert!(time <= limit && time >= limit / 2, "{time:?} for {limit:?}");
        }
        assert_eq!(backoff.next(None), None);
        backoff.progressed();
        let asked = Duration::from_secs(2);
        let time = backoff.next(Some(asked)).unwrap();
        assert!(time >= asked && time <= asked + policy.base);
        assert_eq!(backoff.next(Some(Duration::from_secs(6))), None);
    }
}
