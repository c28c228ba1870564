"""Trains a random forest by scikit-learn, and tells effai how good it is."""

import argparse

import effai
import joblib
from sklearn.ensemble import RandomForestClassifier

import digits

parser = argparse.ArgumentParser()
parser.add_argument("--trees", type=int)
parser.add_argument("--seed", type=int)
args = parser.parse_args()

forest = RandomForestClassifier(args.trees, random_state=args.seed, n_jobs=1).fit(*digits.read("train"))
pictures, labels = digits.read("test")
accuracy = forest.score(pictures, labels)
effai.metric("accuracy", accuracy)
print(f"{accuracy:.3f} of the digits are told")
digits.write(labels, forest.predict_proba(pictures))
joblib.dump(forest, "forest.joblib")
