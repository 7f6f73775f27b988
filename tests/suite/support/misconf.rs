//! A Redis that cannot save, and says so to everybody who writes.

use std::fs;

use super::redis::Server;
use super::wait::until;

impl Server {
    /// From now on it refuses to write (`MISCONF`), because it could not save: something is in the way of its dump.
    #[track_caller]
    pub(crate) fn break_saves(&self) {
        let obstacle = self.folder().join("dump.rdb/in-the-way");
        let _ = fs::remove_file(self.folder().join("dump.rdb"));
        fs::create_dir_all(obstacle).unwrap();
        self.query::<()>(&["CONFIG", "SET", "save", "3600 1"]);
        // Saving begins in another process, which fails a little later.
        let _: redis::RedisResult<()> = redis::cmd("BGSAVE").query(&mut self.connection());
        until("redis cannot save", || {
            let tried: redis::RedisResult<()> = redis::cmd("SET").arg(&["probe", "x"]).query(&mut self.connection());
            tried.is_err_and(|error| error.to_string().contains("MISCONF"))
        });
    }

    /// Lets it save and write again.
    #[track_caller]
    pub(crate) fn mend_saves(&self) {
        fs::remove_dir_all(self.folder().join("dump.rdb")).unwrap();
        self.query::<()>(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
        self.query::<()>(&["DEL", "probe"]);
    }
}
