//! The hold on a lock while the command runs: a lease, the client that renews it, and the story of it.

use crate::clock::Moment;
use crate::job::Keep;
use crate::lock::{self, Lease};
use crate::net::{self, Client};
use crate::report::{Event, Story};
use crate::signals::Heed;

/// A lease that is renewed through a client.
pub struct Tenure<'a, 'b> {
    /// The lease.
    pub lease: Lease,
    /// The client.
    pub redis: &'a mut Client<'b>,
    /// Where it is told.
    pub story: Story,
    /// Why the last renewal failed, if it did.
    pub failure: Option<lock::Error<net::Error>>,
}

impl Keep for Tenure<'_, '_> {
    fn due(&self) -> Moment {
        self.lease.due()
    }

    fn stop_by(&self) -> Moment {
        self.lease.stop_by()
    }

    fn gone_by(&self) -> Moment {
        self.lease.gone_by()
    }

    fn renew(&mut self, until: Moment) -> bool {
        self.redis.pursue(Heed::Everything, 0, Some(until.min(Moment::after(self.lease.attempt()))));
        let renewed = self.lease.renew(self.redis);
        self.redis.close();
        match renewed {
            Ok(true) => self.failure = None,
            Ok(false) => {
                self.story.tell(&Event::LeaseTaken(&self.lease.lock));
                return false;
            }
            Err(lock::Error::Exchange(net::Error::Signal)) => self.lease.hurry(),
            Err(error) => {
                self.story.tell(&Event::NotRenewed(&error));
                self.failure = Some(error);
            }
        }
        true
    }

    fn expire(&mut self) {
        self.story.tell(&Event::LeaseExpired(&self.lease.lock, self.failure.as_ref()));
    }
}
