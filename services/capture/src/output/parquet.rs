//! A Parquet file with the columns of the table `flows`, Zstandard-compressed.

use std::{fs::File, io, sync::Arc};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use weir_proto::Flow;

use super::{
    Cell, Writer,
    columns::{COLUMNS, Kind},
};

/// Records in a row group: what is held in memory.
const ROWS: usize = 50_000;

pub(super) struct Parquet {
    writer: SerializedFileWriter<File>,
    host: String,
    flows: Vec<Flow>,
}

impl Parquet {
    pub(super) fn new(file: File, host: &str) -> anyhow::Result<Self> {
        let schema = Arc::new(parse_message_type(&schema())?);
        let level = ZstdLevel::try_new(3)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
        Ok(Self { writer, host: host.to_owned(), flows: Vec::new() })
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.flows.is_empty() {
            return Ok(());
        }
        let flows = std::mem::take(&mut self.flows);
        self.try_write_group(&flows).map_err(io::Error::other)
    }

    fn try_write_group(&mut self, flows: &[Flow]) -> parquet::errors::Result<()> {
        let mut group = self.writer.next_row_group()?;
        if let Some(mut column) = group.next_column()? {
            let host = ByteArray::from(self.host.as_str());
            column.typed::<ByteArrayType>().write_batch(&vec![host; flows.len()], None, None)?;
            column.close()?;
        }
        for definition in COLUMNS {
            let Some(mut column) = group.next_column()? else { break };
            let (mut numbers, mut texts, mut levels) = (Vec::new(), Vec::new(), Vec::new());
            for flow in flows {
                let cell = (definition.get)(flow);
                levels.push(i16::from(cell != Cell::Absent));
                match cell {
                    // 64 bits without a sign: the schema says so.
                    Cell::Time(number) | Cell::Number(number) => numbers.push(number.cast_signed()),
                    Cell::Text(text) => texts.push(ByteArray::from(text.into_bytes())),
                    Cell::Absent => {}
                }
            }
            match definition.kind {
                Kind::Text => column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None)?,
                Kind::Time | Kind::Number => column.typed::<Int64Type>().write_batch(&numbers, Some(&levels), None)?,
            };
            column.close()?;
        }
        group.close()?;
        Ok(())
    }
}

impl Writer for Parquet {
    fn write(&mut self, flows: &[Flow]) -> io::Result<()> {
        self.flows.extend_from_slice(flows);
        if self.flows.len() >= ROWS { self.write_group() } else { Ok(()) }
    }

    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.write_group()?;
        self.writer.close().map(|_| ()).map_err(io::Error::other)
    }
}

fn schema() -> String {
    let columns = COLUMNS.iter().map(|column| match column.kind {
        Kind::Time => format!("OPTIONAL INT64 {} (TIMESTAMP(MICROS, true));", column.name),
        Kind::Number => format!("OPTIONAL INT64 {} (INTEGER(64, false));", column.name),
        Kind::Text => format!("OPTIONAL BYTE_ARRAY {} (STRING);", column.name),
    });
    let columns: String = columns.collect();
    format!("message flows {{ REQUIRED BYTE_ARRAY host (STRING); {columns} }}")
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::RowAccessor as _,
    };

    use super::*;

    #[test]
    fn what_was_written_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.parquet");
        let mut writer = Box::new(Parquet::new(File::create(&path).unwrap(), "here").unwrap());
        let flow = |id: u64| Flow { flow_id: id, rtt_us: id.is_multiple_of(2).then_some(5), ..Flow::default() };
        let flows: Vec<_> = (u64::MAX - 9..=u64::MAX).map(flow).collect();
        writer.write(&flows).unwrap();
        writer.finish().unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 10);
        let names: Vec<_> = reader
            .metadata()
            .file_metadata()
            .schema()
            .get_fields()
            .iter()
            .map(|field| field.name().to_owned())
            .collect();
        let at = |name: &str| names.iter().position(|known| known == name).unwrap();
        let last = reader.get_row_iter(None).unwrap().last().unwrap().unwrap();
        assert_eq!((last.get_ulong(at("flow_id")).unwrap(), last.get_string(0).unwrap().as_str()), (u64::MAX, "here"));
        assert!(last.get_ulong(at("rtt_us")).is_err());
    }
}
