// What llama.cpp says: node llama_cpp.mjs FOLDER JOB.json OUT.json
// FOLDER is where `npm install node-llama-cpp@3.22` was typed. JOB has `model`, `adapter` (or null),
// `prompts` (lists of ids), `tokens` (how many to write greedily after each, 0 for none). OUT gets
// `written` (lists of ids), and where `tokens` is 0 `logarithms`: of each word's probability next.
// A JOB with `strings` is of the tokenizer alone: OUT is the ids of each, tokens of control found.
import fs from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [folder, job, out] = process.argv.slice(2);
const entry = path.resolve(folder, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama} = await import(pathToFileURL(entry));
const {model, adapter, prompts, tokens, strings} = JSON.parse(fs.readFileSync(job));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
if (strings) {
    const words = await llama.loadModel({modelPath: model, vocabOnly: true});
    fs.writeFileSync(out, JSON.stringify(strings.map((one) => words.tokenize(one, true))));
    await llama.dispose();
    process.exit(0);
}
const loaded = await llama.loadModel({modelPath: model});
const longest = Math.max(...prompts.map((ids) => ids.length)) + tokens;
const context = await loaded.createContext({
    contextSize: Math.max(256, longest + 8),
    threads: 1,
    ...(adapter ? {lora: {adapters: [{filePath: adapter, scale: 1}]}} : {})
});
const sequence = context.getSequence();
const found = {written: [], logarithms: []};
for (const ids of prompts) {
    await sequence.clearHistory();
    if (tokens > 0) {
        const written = [];
        for await (const token of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
            written.push(token);
            if (written.length >= tokens || loaded.isEogToken(token)) break;
        }
        found.written.push(written);
    } else {
        const asked = {generateNext: {probabilities: true, options: {temperature: 1, topK: 0, topP: 1}}};
        const input = [...ids.slice(0, -1), [ids.at(-1), asked]];
        const answers = await sequence.controlledEvaluate(input);
        const next = answers.at(-1).next.probabilities;
        const line = [];
        for (const [token, probability] of next) line[token] = Math.log(probability);
        found.logarithms.push(Array.from(line, (one) => Number.isFinite(one) ? one : null));
    }
}
fs.writeFileSync(out, JSON.stringify(found));
await llama.dispose();
