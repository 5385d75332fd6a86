//! An executor of one future, on the stage: no runtime is needed, and waiting is the simulation's.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::env::point::onlooker;
use crate::sim::stage::Stage;

thread_local! {
    /// The next moment at which a future of this thread wants to be looked at.
    static NEXT: RefCell<Option<Duration>> = const { RefCell::new(None) };
}

/// Runs a future to its end. `None`: the caller's life has ended before, and the future is dropped where it waits. So
/// nothing is unwound, which would take longer than much of a short run.
pub(crate) fn block_on<T>(stage: &Arc<Stage>, future: impl Future<Output = T>) -> Option<T> {
    let alarm = Alarm::new(stage);
    let mut future = pin!(future);
    loop {
        match alarm.poll(future.as_mut()) {
            Ok(value) => return Some(value),
            Err((bell, until)) if stage.rest(bell, until) => {}
            Err(_) => return None,
        }
    }
}

/// What wakes a future: a bell of the stage.
pub(crate) struct Alarm {
    stage: Arc<Stage>,
    bell: u64,
    rang: AtomicBool,
}

impl Alarm {
    pub(crate) fn new(stage: &Arc<Stage>) -> Arc<Self> {
        Arc::new(Alarm { stage: Arc::clone(stage), bell: stage.next_bell(), rang: AtomicBool::new(false) })
    }

    pub(crate) fn stage(&self) -> Arc<Stage> {
        Arc::clone(&self.stage)
    }

    /// Polls the future until it waits. `Err`: for this bell, and at most until this moment.
    pub(crate) fn poll<F: Future + ?Sized>(
        self: &Arc<Self>,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, (u64, Option<Duration>)> {
        let waker = Waker::from(Arc::clone(self));
        loop {
            self.rang.store(false, Ordering::SeqCst);
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(value);
            }
            let until = NEXT.with(|next| next.borrow_mut().take());
            if !self.rang.load(Ordering::SeqCst) {
                return Err((self.bell, until));
            }
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::SeqCst);
        self.stage.ring(self.bell);
    }
}

/// Waits for some of the simulation's time; see [`sleep_async`](crate::sim::sleep_async).
pub struct Sleep {
    until: Duration,
}

impl Sleep {
    pub(crate) fn new(time: Duration) -> Self {
        let onlooker = onlooker().expect("`sleep_async` waits for the time of a simulation, and there is none here");
        Sleep { until: onlooker.now().saturating_add(time) }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sleep(until {:?})", self.until)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<()> {
        if onlooker().is_none_or(|onlooker| onlooker.now() >= self.until) {
            return Poll::Ready(());
        }
        NEXT.with(|next| {
            let mut next = next.borrow_mut();
            *next = Some(next.map_or(self.until, |earlier| earlier.min(self.until)));
        });
        Poll::Pending
    }
}
