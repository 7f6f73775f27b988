//! A Redis Cluster of three nodes.

use super::redis::Server;
use super::wait::until;

const NODES: usize = 3;

/// All hash slots.
const SLOTS: usize = 16384;

/// Three nodes, each with a third of the slots.
pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts the nodes and waits until each of them knows all of them.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let nodes: Vec<Server> = (0..NODES).map(|_| Server::start(&["--cluster-enabled", "yes"])).collect();
        let cluster = Self { nodes };
        for (index, node) in cluster.nodes.iter().enumerate() {
            // Different from the start, or the nodes would have to agree on it first.
            node.query::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            let slots: Vec<String> =
                (0..SLOTS).filter(|slot| owner(*slot) == index).map(|slot| slot.to_string()).collect();
            let words: Vec<&str> =
                ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            node.query::<()>(&words);
            node.query::<()>(&["CLUSTER", "MEET", "127.0.0.1", &cluster.nodes[0].port().to_string()]);
        }
        until("the cluster is whole", || (0..NODES).all(|index| cluster.is_whole(index)));
        cluster
    }

    /// The node of this index.
    pub(crate) fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// A KEY that begins with `start` and whose lock lives on the node of this index.
    pub(crate) fn key_on(&self, index: usize, start: &str) -> String {
        let candidates = (0..).map(|number| format!("{start}{number}"));
        let here = |key: &String| owner(self.slot(key)) == index;
        candidates.into_iter().find(here).unwrap()
    }

    /// The node on which the lock with this KEY lives in the beginning.
    pub(crate) fn home(&self, key: &str) -> usize {
        owner(self.slot(key))
    }

    /// The hash slot of the lock with this KEY.
    fn slot(&self, key: &str) -> usize {
        self.nodes[0].query(&["CLUSTER", "KEYSLOT", &format!("cronlock.{key}")])
    }

    /// Whether this node could serve any key, and knows who has the others.
    pub(crate) fn is_whole(&self, index: usize) -> bool {
        let info: String = self.nodes[index].query(&["CLUSTER", "INFO"]);
        ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:3"]
            .iter()
            .all(|fact| info.lines().any(|line| line == *fact))
    }

    /// Begins to move the slot of the lock with this KEY; the lock itself, if it is held, goes first.
    pub(crate) fn begin_move(&self, key: &str, from: usize, to: usize) {
        let slot = self.slot(key).to_string();
        self.nodes[to].query::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        self.nodes[from].query::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
        self.migrate(&format!("cronlock.{key}"), from, to);
    }

    /// Moves the record of the lock with this KEY.
    pub(crate) fn move_record(&self, key: &str, from: usize, to: usize) {
        self.migrate(&record(key), from, to);
    }

    /// Moves a key, if it is there.
    fn migrate(&self, name: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        self.nodes[from].query::<()>(&["MIGRATE", "127.0.0.1", &port, name, "0", "30000"]);
    }

    /// Ends the move, after which nothing is left behind: all nodes learn of the slot's new owner.
    pub(crate) fn end_move(&self, key: &str, from: usize, to: usize) {
        self.move_record(key, from, to);
        let (slot, owner) = (self.slot(key).to_string(), self.id(to));
        // The new owner first, so that there is one at any time.
        for index in [to, (to + 1) % NODES, (to + 2) % NODES] {
            self.nodes[index].query::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &owner]);
        }
    }

    /// Takes the slot of the lock with this KEY away from its node, or gives it back (`DELSLOTS`, `ADDSLOTS`).
    pub(crate) fn change_slots(&self, verb: &str, key: &str) {
        let slot = self.slot(key);
        self.nodes[owner(slot)].query::<()>(&["CLUSTER", verb, &slot.to_string()]);
    }

    fn id(&self, index: usize) -> String {
        self.nodes[index].query(&["CLUSTER", "MYID"])
    }
}

/// The key of the record of the lock with this KEY: in the same slot.
pub(crate) fn record(key: &str) -> String {
    format!("cronlock.run.{{cronlock.{key}}}")
}

/// The node to which a slot belongs in the beginning.
fn owner(slot: usize) -> usize {
    slot * NODES / SLOTS
}
