//! A program that gives labels: the operation `classify` behind all others, and what the model says of what comes out, as coremltools writes
//! it where it is given a `ClassifierConfig`. Apps see such a model as a classifier.

use std::collections::BTreeMap;

use super::lower::{Kind, bound_to, text, value_type};
use super::{feature, proto};
use crate::export::graph::Graph;

/// The label that is the likeliest, as coremltools calls it where nothing else is asked for.
const LABEL: &str = "classLabel";
/// How likely each is, by its name.
const PROBABILITIES: &str = "classLabel_probs";

/// Writes what makes labels of the probabilities that a program gives, where the graph has labels. What the program gives then.
pub(super) fn classified(graph: &Graph, outputs: Vec<String>, operations: &mut Vec<proto::Operation>) -> Vec<String> {
    if graph.labels.is_empty() {
        return outputs;
    }
    let [probabilities] = &outputs[..] else { unreachable!("of labels there are probabilities alone") };
    let of_text = || value_type(Kind::Text, &[]);
    let numbers = proto::DictionaryType { key_type: Some(of_text()), value_type: Some(value_type(Kind::Float64, &[])) };
    let numbers = proto::ValueType { dictionary_type: Some(Box::new(numbers)), ..Default::default() };
    let named = |name: &str, own| proto::NamedType { name: name.to_owned(), r#type: Some(own) };
    // A value where others are names of constants.
    let classes = proto::Binding { bound: Some(proto::Bound::Value(list(&graph.labels))) };
    operations.push(proto::Operation {
        r#type: "classify".into(),
        inputs: BTreeMap::from([
            ("probabilities".into(), bound_to(probabilities)),
            ("classes".into(), proto::Argument { arguments: vec![classes] }),
        ]),
        outputs: vec![named(LABEL, of_text()), named(PROBABILITIES, numbers)],
        attributes: BTreeMap::from([("name".into(), text("classify"))]),
    });
    vec![LABEL.into(), PROBABILITIES.into()]
}

/// A list of texts.
fn list(all: &[String]) -> proto::Value {
    let length = proto::Length::Constant(proto::ConstantLength { size: all.len() as u64 });
    let own = proto::ListType {
        r#type: Some(value_type(Kind::Text, &[])),
        length: Some(proto::Dimension { length: Some(length) }),
    };
    let values = proto::ListValue { values: all.iter().map(|label| text(label)).collect() };
    proto::Value {
        r#type: Some(proto::ValueType { list_type: Some(Box::new(own)), ..Default::default() }),
        held: Some(proto::Held::Immediate(proto::Immediate { tensor: None, list: Some(values) })),
    }
}

/// What a model says of itself, as that of a classifier where the graph has labels.
pub(super) fn described(graph: &Graph, own: proto::Description) -> proto::Description {
    if graph.labels.is_empty() {
        return own;
    }
    let numbers = proto::NumbersFeature { by_text: Some(proto::Nothing {}) };
    let kinds =
        [(LABEL, proto::FeatureKind::Text(proto::Nothing {})), (PROBABILITIES, proto::FeatureKind::Numbers(numbers))];
    proto::Description {
        output: kinds.into_iter().map(|(name, kind)| feature(name, kind)).collect(),
        predicted_feature_name: LABEL.into(),
        predicted_probabilities_name: PROBABILITIES.into(),
        ..own
    }
}
