//! What a program keeps from run to run: tensors of 16 bits, of zeros before the first.

use std::collections::HashMap;

use rten_tensor::Tensor;

use super::super::proto::{self, Bound, FeatureKind};
use super::{Held, element, refused};
use crate::failure::Failure;

/// The operation that gives what is kept.
pub(super) const READ: &str = "read_state";
/// The operation that changes it.
pub(super) const WRITE: &str = "write_state";

/// Core ML's number of arrays in 16 bits.
const HALVES: i32 = 65552;

/// What is kept, by name.
pub(super) type Kept = HashMap<String, Held>;

/// A state as its program declares it: the type of its tensor.
pub(super) struct Declared {
    tensor: proto::NamedType,
    shape: Vec<usize>,
}

/// States of a function, and what it is given. The model has to describe the same states, each in 16 bits.
pub(super) fn parted(
    inputs: Vec<proto::NamedType>,
    described: &[proto::Feature],
) -> Result<(Vec<Declared>, Vec<proto::NamedType>), Failure> {
    let (states, inputs): (Vec<_>, Vec<_>) =
        inputs.into_iter().partition(|input| input.r#type.as_ref().is_some_and(|own| own.state_type.is_some()));
    let states = states.into_iter().map(declared).collect::<Result<Vec<_>, _>>()?;
    let said = described.iter().map(|feature| match feature.r#type.as_ref().and_then(|own| own.kind.as_ref()) {
        Some(FeatureKind::State(proto::StateFeature { array: Some(array) })) if array.data_type == HALVES => {
            Ok((&feature.name, array.shape.clone()))
        }
        _ => Err(refused(format!("the state `{}` is no array of 16 bits", feature.name))),
    });
    let said = said.collect::<Result<HashMap<_, _>, _>>()?;
    let is_said = |own: &Declared| {
        let shape: Vec<i64> = own.shape.iter().map(|length| *length as i64).collect();
        said.get(&own.tensor.name) == Some(&shape)
    };
    if said.len() != states.len() || !states.iter().all(is_said) {
        return Err(refused("the model does not describe the states that its program has"));
    }
    Ok((states, inputs))
}

fn declared(input: proto::NamedType) -> Result<Declared, Failure> {
    let name = input.name;
    let wrapped = input.r#type.and_then(|own| own.state_type).and_then(|own| own.wrapped);
    let tensor = wrapped.as_ref().and_then(|own| own.tensor_type.as_ref());
    let lengths = tensor.filter(|own| own.data_type == element::FLOAT16).and_then(|own| {
        let length = |dimension: &proto::Dimension| match &dimension.length {
            Some(proto::Length::Constant(length)) => Some(length.size as usize),
            _ => None,
        };
        own.dimensions.iter().map(length).collect::<Option<Vec<_>>>()
    });
    let shape = lengths.ok_or_else(|| refused(format!("the state `{name}` is no tensor of one size in 16 bits")))?;
    Ok(Declared { tensor: proto::NamedType { name, r#type: wrapped }, shape })
}

/// States before the first run.
pub(super) fn fresh(states: &[Declared]) -> Kept {
    states.iter().map(|own| (own.tensor.name.clone(), Held::Floats(Tensor::zeros(&own.shape)))).collect()
}

fn argument<'a>(operation: &'a proto::Operation, name: &str) -> Result<&'a str, Failure> {
    let bound = operation.inputs.get(name).and_then(|argument| argument.arguments.first()?.bound.as_ref());
    match bound {
        Some(Bound::Name(tensor)) => Ok(tensor),
        _ => Err(refused(format!("`{}` without `{name}`", operation.r#type))),
    }
}

/// What is kept now.
pub(super) fn read(operation: &proto::Operation, kept: &Kept) -> Result<Held, Failure> {
    let name = argument(operation, "input")?;
    kept.get(name).cloned().ok_or_else(|| refused(format!("`{name}` is no state")))
}

/// Refuses a program that keeps what is not of the type of its state.
pub(super) fn check(operations: &[proto::Operation], states: &[Declared]) -> Result<(), Failure> {
    let given: HashMap<&str, _> =
        operations.iter().flat_map(|own| &own.outputs).map(|own| (&own.name[..], &own.r#type)).collect();
    for operation in operations.iter().filter(|own| own.r#type == WRITE) {
        let (name, data) = (argument(operation, "input")?, argument(operation, "data")?);
        let state = states.iter().find(|own| own.tensor.name == name);
        let state = state.ok_or_else(|| refused(format!("`{name}` is no state")))?;
        if given.get(data) != Some(&&state.tensor.r#type) {
            return Err(refused(format!("`{data}` is not of the type of the state `{name}`")));
        }
    }
    Ok(())
}

/// Keeps another value, of the type that [`check`] has found.
pub(super) fn write(
    operation: &proto::Operation,
    values: &HashMap<String, Held>,
    kept: &mut Kept,
) -> Result<(), Failure> {
    let (name, data) = (argument(operation, "input")?, argument(operation, "data")?);
    let value = values.get(data).ok_or_else(|| refused(format!("`{data}` is not computed before it")))?;
    kept.insert(name.to_owned(), value.clone());
    Ok(())
}
