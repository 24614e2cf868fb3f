//! What a value looks like to serde: names, order and widths, as the Avro encoder will meet them.

use std::fmt;

use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};

/// The shape of one value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A struct: its name, and its fields in order.
    Record(&'static str, Vec<(&'static str, Shape)>),
    /// A sequence.
    Array(Vec<Shape>),
    /// `None`.
    Null,
    /// `Some`.
    Some(Box<Shape>),
    /// `i32`.
    Int,
    /// `i64`.
    Long,
    /// A text.
    Text,
}

/// The shape of `value`. Panics at anything our contract has no place for.
pub(crate) fn shape_of(value: &impl Serialize) -> Shape {
    value.serialize(Probe).unwrap()
}

struct Probe;

/// A type that the contract has no place for.
#[derive(Debug)]
pub(crate) struct Unexpected(String);

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unexpected {}

impl serde::ser::Error for Unexpected {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

pub(crate) struct Record(&'static str, Vec<(&'static str, Shape)>);

impl SerializeStruct for Record {
    type Ok = Shape;
    type Error = Unexpected;

    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unexpected> {
        self.1.push((name, value.serialize(Probe)?));
        Ok(())
    }

    fn end(self) -> Result<Shape, Unexpected> {
        Ok(Shape::Record(self.0, self.1))
    }
}

pub(crate) struct Array(Vec<Shape>);

impl SerializeSeq for Array {
    type Ok = Shape;
    type Error = Unexpected;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Unexpected> {
        self.0.push(value.serialize(Probe)?);
        Ok(())
    }

    fn end(self) -> Result<Shape, Unexpected> {
        Ok(Shape::Array(self.0))
    }
}

/// Kinds of values that none of our messages may have.
macro_rules! unexpected {
    ($($method:ident($type:ty);)*) => {
        $(fn $method(self, _: $type) -> Result<Shape, Unexpected> {
            Err(Unexpected(format!("{} has no place in the contract", stringify!($method))))
        })*
    };
}

impl Serializer for Probe {
    type Ok = Shape;
    type Error = Unexpected;
    type SerializeSeq = Array;
    type SerializeStruct = Record;
    type SerializeTuple = Impossible<Shape, Unexpected>;
    type SerializeTupleStruct = Impossible<Shape, Unexpected>;
    type SerializeTupleVariant = Impossible<Shape, Unexpected>;
    type SerializeMap = Impossible<Shape, Unexpected>;
    type SerializeStructVariant = Impossible<Shape, Unexpected>;

    unexpected! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    fn serialize_i32(self, _: i32) -> Result<Shape, Unexpected> {
        Ok(Shape::Int)
    }

    fn serialize_i64(self, _: i64) -> Result<Shape, Unexpected> {
        Ok(Shape::Long)
    }

    fn serialize_str(self, _: &str) -> Result<Shape, Unexpected> {
        Ok(Shape::Text)
    }

    fn serialize_none(self) -> Result<Shape, Unexpected> {
        Ok(Shape::Null)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<Shape, Unexpected> {
        Ok(Shape::Some(Box::new(value.serialize(Probe)?)))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Array, Unexpected> {
        Ok(Array(Vec::new()))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Record, Unexpected> {
        Ok(Record(name, Vec::new()))
    }

    fn serialize_unit(self) -> Result<Shape, Unexpected> {
        Err(Unexpected("a unit has no place in the contract".to_owned()))
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        _: &T,
    ) -> Result<Shape, Unexpected> {
        Err(Unexpected(format!("newtype {name} must be serde(transparent)")))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<Shape, Unexpected> {
        Err(Unexpected(format!("enum {name} has no place in the contract")))
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Shape, Unexpected> {
        Err(Unexpected(format!("enum {name} has no place in the contract")))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unexpected> {
        Err(Unexpected("a tuple has no place in the contract".to_owned()))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Unexpected> {
        Err(Unexpected(format!("tuple {name} has no place in the contract")))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unexpected> {
        Err(Unexpected(format!("enum {name} has no place in the contract")))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unexpected> {
        Err(Unexpected("a map has no place in the contract".to_owned()))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unexpected> {
        Err(Unexpected(format!("enum {name} has no place in the contract")))
    }
}
