//! The real program between a real NATS and a real `ClickHouse`: each record once, whatever is killed.

mod containers;
mod crashes;
mod duplicates;
mod purges;
mod support;
mod surroundings;
mod tables;
