//! Random messages of a contract: well-formed on the wire, with values at and beyond every edge.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::bytes::damage_text;

/// Messages within messages at most; google.protobuf.Value and trees of our own could go on for ever.
const MAX_DEPTH: usize = 6;

/// Texts by the last part of a field's name: what a caller would put there.
pub trait Vocabulary {
    /// Good and bad texts for a field; none when any text is as good as another.
    fn texts(&self, field: &str) -> &[String];
}

/// A random message.
pub fn message(random: &mut StdRng, descriptor: &MessageDescriptor, words: &dyn Vocabulary) -> DynamicMessage {
    fill(random, descriptor, words, 0)
}

fn fill(random: &mut StdRng, descriptor: &MessageDescriptor, words: &dyn Vocabulary, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    // Some messages are full, some almost empty.
    let share = [0.2, 0.6, 0.95].choose(random).copied().unwrap_or(0.5);
    for field in descriptor.fields() {
        let deep = matches!(field.kind(), Kind::Message(_)) && depth >= MAX_DEPTH;
        if deep || !random.random_bool(share) {
            continue;
        }
        let value = if field.is_map() {
            map(random, &field, words, depth)
        } else if field.is_list() {
            Value::List((0..count(random)).map(|_| value(random, &field, words, depth)).collect())
        } else {
            value(random, &field, words, depth)
        };
        message.set_field(&field, value);
    }
    message
}

/// Mostly few; now and then more than any batch may have.
fn count(random: &mut StdRng) -> usize {
    match random.random_range(0..100) {
        0 => 1001,
        1..5 => 70,
        _ => random.random_range(0..4),
    }
}

fn map(random: &mut StdRng, field: &FieldDescriptor, words: &dyn Vocabulary, depth: usize) -> Value {
    let Kind::Message(entry) = field.kind() else { return Value::Map(Default::default()) };
    let (key, mapped) = (entry.map_entry_key_field(), entry.map_entry_value_field());
    let entries = (0..count(random)).filter_map(|_| {
        let key = match value(random, &key, words, depth) {
            Value::String(text) => MapKey::String(text),
            Value::I32(number) => MapKey::I32(number),
            Value::I64(number) => MapKey::I64(number),
            _ => return None,
        };
        Some((key, value(random, &mapped, words, depth)))
    });
    Value::Map(entries.collect())
}

fn value(random: &mut StdRng, field: &FieldDescriptor, words: &dyn Vocabulary, depth: usize) -> Value {
    match field.kind() {
        Kind::Double => Value::F64(double(random)),
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        Kind::Float => Value::F32(double(random) as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(random) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(random)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(random) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(random) as u64),
        Kind::Bool => Value::Bool(random.random()),
        Kind::String => Value::String(text(random, field.name(), words)),
        Kind::Bytes => Value::Bytes(bytes(random).into()),
        Kind::Message(descriptor) => Value::Message(fill(random, &descriptor, words, depth + 1)),
        Kind::Enum(values) => {
            let known: Vec<i32> = values.values().map(|value| value.number()).collect();
            let unknown = [-1, 99, i32::MAX];
            let from = if random.random_bool(0.85) { &known[..] } else { &unknown[..] };
            Value::EnumNumber(from.choose(random).copied().unwrap_or_default())
        }
    }
}

fn number(random: &mut StdRng) -> i64 {
    const EDGES: &[i64] = &[
        0,
        1,
        2,
        9,
        10,
        100,
        1000,
        1001,
        -1,
        999_999_999,
        1_000_000_000,
        253_402_300_799,
        253_402_300_800,
        -62_135_596_801,
        315_576_000_000,
        i32::MAX as i64,
        i32::MIN as i64,
        u32::MAX as i64,
        i64::MAX,
        i64::MIN,
    ];
    if random.random_bool(0.6) { random.random_range(0..5) } else { EDGES.choose(random).copied().unwrap_or_default() }
}

fn double(random: &mut StdRng) -> f64 {
    let edges = [0.0, 1.0, 1.5, 2.0, -1.0, 1e-320, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    edges.choose(random).copied().unwrap_or_default()
}

fn bytes(random: &mut StdRng) -> Vec<u8> {
    let length = [0, 1, 15, 16, 16, 16, 17, 5000].choose(random).copied().unwrap_or_default();
    (0..length).map(|_| random.random()).collect()
}

fn text(random: &mut StdRng, field: &str, words: &dyn Vocabulary) -> String {
    let known = words.texts(field);
    let any = ["", "a", "default", "echo", "a.b_c-d", "A b", "{}", "null", "\u{0}", "é\u{301}", "%s%n", "' OR 1=1 --", "../../etc"];
    let text = match known.choose(random) {
        Some(text) if random.random_bool(0.9) => text.clone(),
        _ => any.choose(random).copied().unwrap_or_default().to_owned(),
    };
    match random.random_range(0..10) {
        0 => damage_text(random, &text, &[]),
        1 if text.len() < 16 => text.repeat(random.random_range(1..100)),
        _ => text,
    }
}
