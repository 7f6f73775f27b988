//! The lock code itself, explored exhaustively: every order of events, with lost requests and replies, requests that arrive
//! late, crashes, signals, resets, predecessors and wrong clocks.
//!
//! `GOLOCK_MODEL=large` explores the large worlds as well, which takes minutes, and with `--profile model` fewer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::struct_excessive_bools, reason = "a state is made of what has happened, and what has not")]

mod client;
mod course;
mod event;
mod host;
mod job;
mod lua;
mod mutation;
mod operation;
mod proof;
mod redis;
mod world;
mod worlds;

use std::io::Write;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::event::Event;
use crate::world::{Setting, World};

impl Model for Setting {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin()]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        events.extend(world.events(self));
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        Some(world.after(self, event))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one job runs", |_, world: &World| !world.overlaps()),
            Property::always("a running job has its lock", |_, world: &World| !world.is_deceived()),
            Property::always("nothing goes wrong", |_, world: &World| world.wrong.is_none()),
            Property::always("no lock lasts too long", |setting: &Self, world: &World| !world.lasts_too_long(setting)),
            Property::always("every schedule ends", |setting: &Self, world: &World| !world.is_stuck(setting)),
        ]
    }
}

/// What the exploration of a world came to.
struct Explored {
    states: usize,
    /// The properties that do not hold, each with a way there.
    broken: Vec<String>,
}

fn explore(setting: &Setting) -> Explored {
    let enough = if setting.mutation.is_some() { HasDiscoveries::Any } else { HasDiscoveries::All };
    let checked = setting.checker().finish_when(enough).threads(2).spawn_bfs().join();
    let told = checked.discoveries().into_iter().map(|(property, path)| {
        let wrong = path.last_state().wrong;
        format!("{}: {property}: {wrong:?} after {:?}", setting.name, path.into_actions())
    });
    Explored { states: checked.unique_state_count(), broken: told.collect() }
}

/// Past the harness, which shows what is printed only of tests that fail.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "model: {text}");
}

#[test]
fn nothing_goes_wrong_in_any_schedule() {
    let (worlds, mut states) = (worlds::all(), 0);
    for world in &worlds {
        let explored = explore(world);
        println!("{:>9} states: {}, {}", explored.states, world.name, world.budget.short());
        assert!(explored.broken.is_empty(), "{:#?}", explored.broken);
        states += explored.states;
    }
    tell(&format!("{states} states of {} worlds, in none of which anything is wrong", worlds.len()));
}

#[test]
fn every_mutation_is_found() {
    let mutated = worlds::mutated();
    for world in &mutated {
        let explored = explore(world);
        println!("{:?}: {:?}", world.mutation, explored.broken.first());
        assert!(!explored.broken.is_empty(), "{:?} was not found", world.mutation);
    }
    tell(&format!("{} mutations of the protocol, each of which was found", mutated.len()));
}
