//! A Redis that has no place for another client.

use redis::Connection;

use super::redis::Server;

/// The only connection that a full server has.
pub(crate) struct Places(Connection);

impl Server {
    /// Turns everybody away but the one that holds the places.
    #[track_caller]
    pub(crate) fn fill(&self) -> Places {
        let places = Places(self.connection());
        places.limit("1")
    }
}

impl Places {
    /// Lets others come again.
    #[track_caller]
    pub(crate) fn free(self) {
        self.limit("1000");
    }

    #[track_caller]
    fn limit(mut self, count: &str) -> Self {
        redis::cmd("CONFIG").arg(&["SET", "maxclients", count]).query::<()>(&mut self.0).unwrap();
        self
    }
}
