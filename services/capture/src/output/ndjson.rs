//! One JSON object a line.

use std::io::{self, Write};

use weir_proto::Flow;

use super::{Writer, object};

pub(super) struct Ndjson {
    target: Box<dyn Write + Send>,
    host: String,
}

impl Ndjson {
    pub(super) fn new(target: Box<dyn Write + Send>, host: &str) -> Self {
        Self { target, host: host.to_owned() }
    }
}

impl Writer for Ndjson {
    fn write(&mut self, flows: &[Flow]) -> io::Result<()> {
        for flow in flows {
            serde_json::to_writer(&mut self.target, &object(flow, &self.host))?;
            self.target.write_all(b"\n")?;
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        self.target.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.target.flush()
    }
}
