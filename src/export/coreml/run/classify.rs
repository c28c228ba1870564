//! The last operation of a classifier, which makes text and a dictionary of probabilities. What is compared is the probabilities; of the rest
//! it is seen that a model is of one piece: an app is given what the model says, by the labels that the operation has.

use std::collections::BTreeSet;

use rten_tensor::Layout;

use super::proto::{self, Bound};
use super::{Held, element, refused};
use crate::failure::Failure;

/// The operation.
const CLASSIFY: &str = "classify";

/// The labels of a program, and what is made of them.
pub(super) struct Classes {
    /// The tensor of probabilities.
    probabilities: String,
    count: usize,
}

/// Takes the operation out of those of a program; none where it is no classifier.
///
/// # Errors
/// If there is a part of one only.
pub(super) fn taken(
    operations: &mut Vec<proto::Operation>,
    outputs: &[String],
    described: &proto::Description,
) -> Result<Option<Classes>, Failure> {
    let is_last = operations.pop_if(|operation| operation.r#type == CLASSIFY);
    let Some(operation) = is_last else {
        let said = [&described.predicted_feature_name, &described.predicted_probabilities_name];
        let is_plain = said.iter().all(|name| name.is_empty());
        return if is_plain { Ok(None) } else { Err(refused("it is said to give labels, and gives none")) };
    };
    let labels = labels(&operation).ok_or_else(|| refused("the labels of `classify` cannot be read"))?;
    let distinct: BTreeSet<&str> = labels.iter().copied().collect();
    if distinct.len() != labels.len() || distinct.contains("") {
        return Err(refused("of the labels of `classify` two are one, or one is empty"));
    }
    if !is_described(&operation, outputs, described) {
        return Err(refused("it does not say what `classify` gives"));
    }
    let bound = operation.inputs.get("probabilities").and_then(|argument| argument.arguments.first()?.bound.clone());
    let Some(Bound::Name(probabilities)) = bound else { return Err(refused("`classify` has no probabilities")) };
    Ok(Some(Classes { probabilities, count: labels.len() }))
}

/// The labels that an operation has, which are as many as their type says.
fn labels(operation: &proto::Operation) -> Option<Vec<&str>> {
    let Some(Bound::Value(value)) = &operation.inputs.get("classes")?.arguments.first()?.bound else { return None };
    let own = value.r#type.as_ref()?.list_type.as_ref()?;
    let Some(proto::Length::Constant(length)) = &own.length.as_ref()?.length else { return None };
    let Some(proto::Held::Immediate(proto::Immediate { list: Some(list), .. })) = &value.held else { return None };
    let is_whole = length.size == list.values.len() as u64 && is_text(own.r#type.as_ref()?);
    let all = list.values.iter().map(|value| {
        let Some(proto::Held::Immediate(own)) = &value.held else { return None };
        match own.tensor.as_ref()?.values.as_ref()? {
            _ if !is_text(value.r#type.as_ref()?) => None,
            proto::Values::Strings(texts) => texts.values.first().map(String::as_str),
            _ => None,
        }
    });
    all.collect::<Option<_>>().filter(|_| is_whole)
}

fn is_of(own: &proto::ValueType, kind: i32) -> bool {
    own.tensor_type.as_ref().is_some_and(|own| own.data_type == kind && own.rank == 0)
}

fn is_text(own: &proto::ValueType) -> bool {
    is_of(own, element::STRING)
}

/// Whether a program and its model say of two outputs what the operation gives: the likeliest label, and numbers by labels.
fn is_described(operation: &proto::Operation, outputs: &[String], described: &proto::Description) -> bool {
    let ([label, numbers], [first, second]) = (&operation.outputs[..], outputs) else { return false };
    let of_numbers = numbers.r#type.as_ref().and_then(|own| own.dictionary_type.as_ref());
    let is_typed = label.r#type.as_ref().is_some_and(is_text)
        && of_numbers.is_some_and(|own| {
            own.key_type.as_ref().is_some_and(is_text)
                && own.value_type.as_ref().is_some_and(|own| is_of(own, element::FLOAT64))
        });
    let kind = |name: &String| {
        let own = described.output.iter().find(|own| own.name == *name)?;
        own.r#type.as_ref()?.kind.as_ref()
    };
    let by_text = |own: &proto::NumbersFeature| own.by_text.is_some();
    is_typed
        && [first, second] == [&label.name, &numbers.name]
        && [first, second] == [&described.predicted_feature_name, &described.predicted_probabilities_name]
        && matches!(kind(first), Some(proto::FeatureKind::Text(_)))
        && matches!(kind(second), Some(proto::FeatureKind::Numbers(own)) if by_text(own))
}

impl Classes {
    /// Refuses probabilities that are not one for each label.
    pub(super) fn check(&self, computed: Option<&Held>) -> Result<(), Failure> {
        match computed {
            Some(Held::Floats(values)) if values.len() == self.count => Ok(()),
            Some(held) => {
                let (name, shape) = (&self.probabilities, held.shape());
                Err(refused(format!("`{name}` comes as {shape:?}, of {} labels", self.count)))
            }
            None => Err(refused(format!("no `{}`", self.probabilities))),
        }
    }

    /// The tensor of probabilities.
    pub(super) fn probabilities(&self) -> &str {
        &self.probabilities
    }
}
