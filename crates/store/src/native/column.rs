//! The columns, and how a row's fields come into them.

use std::{collections::HashMap, fmt};

use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple},
};

use super::types::{Layout, Type};

/// A row does not fit its table.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Mismatch(String);

impl serde::ser::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The values of a column.
#[derive(Debug)]
pub(super) enum Column {
    Fixed { width: usize, bytes: Vec<u8> },
    Text { count: usize, bytes: Vec<u8> },
    Nullable { nulls: Vec<u8>, values: Box<Column> },
    Array { ends: Vec<u8>, total: u64, elements: Box<Column> },
    Tuple(Vec<Column>),
}

impl Column {
    fn new(layout: &Layout) -> Self {
        match layout {
            Layout::Fixed(width) => Self::Fixed { width: *width, bytes: Vec::new() },
            Layout::Text => Self::Text { count: 0, bytes: Vec::new() },
            Layout::Nullable(values) => Self::Nullable { nulls: Vec::new(), values: Box::new(Self::new(values)) },
            Layout::Array(of) => Self::Array { ends: Vec::new(), total: 0, elements: Box::new(Self::new(of)) },
            Layout::Tuple(layouts) => Self::Tuple(layouts.iter().map(Self::new).collect()),
        }
    }

    /// Whether it has so many values.
    pub(super) fn has(&self, count: usize) -> bool {
        match self {
            Self::Fixed { width, bytes } => bytes.len() == count * width,
            Self::Text { count: values, .. } => *values == count,
            // That its values fit was looked at when they came.
            Self::Nullable { nulls, .. } => nulls.len() == count,
            Self::Array { ends, total, elements } => {
                ends.len() == count * size_of::<u64>() && elements.has(usize::try_from(*total).unwrap_or(usize::MAX))
            }
            Self::Tuple(columns) => columns.iter().all(|column| column.has(count)),
        }
    }

    /// Hands over the values and forgets them.
    pub(super) fn take(&mut self, write: &mut impl FnMut(&[u8])) {
        fn hand_over(bytes: &mut Vec<u8>, write: &mut impl FnMut(&[u8])) {
            write(bytes);
            bytes.clear();
        }
        match self {
            Self::Fixed { bytes, .. } => hand_over(bytes, write),
            Self::Text { count, bytes } => {
                *count = 0;
                hand_over(bytes, write);
            }
            Self::Nullable { nulls, values } => {
                values.fill(nulls.len());
                hand_over(nulls, write);
                values.take(write);
            }
            Self::Array { ends, total, elements } => {
                *total = 0;
                hand_over(ends, write);
                elements.take(write);
            }
            Self::Tuple(columns) => columns.iter_mut().for_each(|column| column.take(write)),
        }
    }

    /// A value that stands where there is none.
    fn add_nothing(&mut self) {
        match self {
            Self::Fixed { width, bytes } => bytes.resize(bytes.len() + *width, 0),
            Self::Text { count, bytes } => {
                *count += 1;
                bytes.push(0);
            }
            // What stands where there is none is added with what follows.
            Self::Nullable { nulls, .. } => nulls.push(1),
            Self::Array { ends, total, .. } => ends.extend_from_slice(&total.to_le_bytes()),
            Self::Tuple(columns) => columns.iter_mut().for_each(Self::add_nothing),
        }
    }

    /// Adds what stands where there is none, up to so many values.
    fn fill(&mut self, count: usize) {
        if let Self::Fixed { width, bytes } = self {
            bytes.resize(count * *width, 0);
        } else {
            while !self.has(count) {
                self.add_nothing();
            }
        }
    }

    #[inline]
    fn add_bytes<const N: usize>(&mut self, value: [u8; N]) -> Result<(), Mismatch> {
        match self {
            Self::Fixed { bytes, .. } => {
                bytes.extend_from_slice(&value);
                Ok(())
            }
            _ => Err(misfit("a number")),
        }
    }

    fn add_text(&mut self, text: &[u8]) -> Result<(), Mismatch> {
        let Self::Text { count, bytes } = self else { return Err(misfit("text")) };
        *count += 1;
        // Most are empty.
        if text.is_empty() {
            bytes.push(0);
            return Ok(());
        }
        let (buffer, length) = varint(text.len() as u64);
        bytes.extend_from_slice(&buffer[..length]);
        bytes.extend_from_slice(text);
        Ok(())
    }
}

/// A number in 7 bits a byte, the lowest first, and how many bytes it takes.
pub(super) fn varint(mut value: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut length) = ([0; 10], 0);
    loop {
        bytes[length] = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            return (bytes, length + 1);
        }
        bytes[length] |= 0x80;
        length += 1;
    }
}

fn misfit(what: &str) -> Mismatch {
    Mismatch(format!("{what} does not fit its column"))
}

/// Takes the fields of a row, each into its column.
pub(super) struct RowColumns<'a> {
    table: &'a HashMap<String, Type>,
    columns: &'a mut Vec<(&'static str, Column)>,
    next: usize,
}

impl<'a> RowColumns<'a> {
    pub(super) fn new(table: &'a HashMap<String, Type>, columns: &'a mut Vec<(&'static str, Column)>) -> Self {
        Self { table, columns, next: 0 }
    }
}

impl SerializeStruct for RowColumns<'_> {
    type Ok = ();
    type Error = Mismatch;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Mismatch> {
        if self.next == self.columns.len() {
            let of = self.table.get(name).ok_or_else(|| Mismatch(format!("the table has no column {name}")))?;
            self.columns.push((name, Column::new(of.layout())));
        }
        let (_, column) = &mut self.columns[self.next];
        self.next += 1;
        value.serialize(Cell(column)).map_err(|Mismatch(why)| Mismatch(format!("{name}: {why}")))
    }

    fn end(self) -> Result<(), Mismatch> {
        Ok(())
    }
}

/// Takes one value.
struct Cell<'a>(&'a mut Column);

macro_rules! numbers {
    ($($method:ident: $number:ty),*) => {
        $(
            #[inline]
            fn $method(self, value: $number) -> Result<(), Mismatch> {
                self.0.add_bytes(value.to_le_bytes())
            }
        )*
    };
}

macro_rules! refused {
    ($self:ident: $($method:ident($($argument:ty),*) -> $result:ty),* $(,)?) => {
        $(
            fn $method(self $(, _: $argument)*) -> Result<$result, Mismatch> {
                Err(misfit(stringify!($method)))
            }
        )*
    };
}

impl<'a> Serializer for Cell<'a> {
    type Ok = ();
    type Error = Mismatch;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Impossible<(), Mismatch>;
    type SerializeTupleVariant = Impossible<(), Mismatch>;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Impossible<(), Mismatch>;
    type SerializeStructVariant = Impossible<(), Mismatch>;

    numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64
    );

    fn serialize_bool(self, value: bool) -> Result<(), Mismatch> {
        self.0.add_bytes([u8::from(value)])
    }

    fn serialize_str(self, value: &str) -> Result<(), Mismatch> {
        self.0.add_text(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Mismatch> {
        self.0.add_text(value)
    }

    fn serialize_none(self) -> Result<(), Mismatch> {
        if !matches!(self.0, Column::Nullable { .. }) {
            return Err(misfit("nothing"));
        }
        self.0.add_nothing();
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Mismatch> {
        let Column::Nullable { nulls, values } = self.0 else { return Err(misfit("an option")) };
        values.fill(nulls.len());
        nulls.push(0);
        value.serialize(Cell(&mut *values))?;
        if values.has(nulls.len()) { Ok(()) } else { Err(misfit("an option")) }
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'a>, Mismatch> {
        match self.0 {
            Column::Array { ends, total, elements } => Ok(Elements { ends, total, values: elements }),
            _ => Err(misfit("a list")),
        }
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Elements<'a>, Mismatch> {
        self.serialize_seq(length)
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Mismatch> {
        Ok(Parts { column: self.0, next: 0 })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Mismatch> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Mismatch> {
        Err(misfit("a variant"))
    }

    refused!(self:
        serialize_char(char) -> (),
        serialize_unit() -> (),
        serialize_unit_struct(&'static str) -> (),
        serialize_unit_variant(&'static str, u32, &'static str) -> (),
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_struct(&'static str, usize) -> Self::SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    );

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Takes the elements of a list, or the pairs of a map.
struct Elements<'a> {
    ends: &'a mut Vec<u8>,
    total: &'a mut u64,
    values: &'a mut Column,
}

impl Elements<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, part: usize, value: &T) -> Result<(), Mismatch> {
        match self.values {
            Column::Tuple(columns) if part < columns.len() => value.serialize(Cell(&mut columns[part])),
            _ => Err(misfit("a map")),
        }
    }

    fn finish(self) {
        self.ends.extend_from_slice(&self.total.to_le_bytes());
    }
}

impl SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = Mismatch;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        *self.total += 1;
        value.serialize(Cell(self.values))
    }

    fn end(self) -> Result<(), Mismatch> {
        self.finish();
        Ok(())
    }
}

impl SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Mismatch;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Mismatch> {
        *self.total += 1;
        self.part(0, key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        self.part(1, value)
    }

    fn end(self) -> Result<(), Mismatch> {
        self.finish();
        Ok(())
    }
}

/// Takes the parts of a tuple; those of an address or a UUID make one value.
struct Parts<'a> {
    column: &'a mut Column,
    next: usize,
}

impl SerializeTuple for Parts<'_> {
    type Ok = ();
    type Error = Mismatch;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        match &mut *self.column {
            column @ Column::Fixed { .. } => value.serialize(Cell(column)),
            Column::Tuple(columns) => {
                let column = columns.get_mut(self.next).ok_or_else(|| misfit("a tuple"))?;
                self.next += 1;
                value.serialize(Cell(column))
            }
            _ => Err(misfit("a tuple")),
        }
    }

    fn end(self) -> Result<(), Mismatch> {
        Ok(())
    }
}

impl Serializer for RowColumns<'_> {
    type Ok = ();
    type Error = Mismatch;
    type SerializeSeq = Impossible<(), Mismatch>;
    type SerializeTuple = Impossible<(), Mismatch>;
    type SerializeTupleStruct = Impossible<(), Mismatch>;
    type SerializeTupleVariant = Impossible<(), Mismatch>;
    type SerializeMap = Impossible<(), Mismatch>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), Mismatch>;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Mismatch> {
        Ok(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Mismatch> {
        Err(misfit("an option"))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Mismatch> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Mismatch> {
        Err(misfit("a variant"))
    }

    refused!(self:
        serialize_bool(bool) -> (),
        serialize_i8(i8) -> (),
        serialize_i16(i16) -> (),
        serialize_i32(i32) -> (),
        serialize_i64(i64) -> (),
        serialize_u8(u8) -> (),
        serialize_u16(u16) -> (),
        serialize_u32(u32) -> (),
        serialize_u64(u64) -> (),
        serialize_f32(f32) -> (),
        serialize_f64(f64) -> (),
        serialize_char(char) -> (),
        serialize_str(&str) -> (),
        serialize_bytes(&[u8]) -> (),
        serialize_none() -> (),
        serialize_unit() -> (),
        serialize_unit_struct(&'static str) -> (),
        serialize_unit_variant(&'static str, u32, &'static str) -> (),
        serialize_seq(Option<usize>) -> Self::SerializeSeq,
        serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    );
}
