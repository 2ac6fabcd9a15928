/** [[name, code]] to paste, for `base` ("http://127.0.0.1:8121") and a model id. */
export function snippets(base, model, needsKey) {
  const key = needsKey ? "YOUR_API_KEY" : "unused";
  const input = ["hello world", "another text"];
  const body = JSON.stringify({ model, input });
  const code = `{ model: ${JSON.stringify(model)}, input: ${JSON.stringify(input)} }`;
  const header = needsKey ? `  -H 'Authorization: Bearer ${key}' \\\n` : "";
  return [
    ["curl", `curl ${base}/v1/embeddings \\
  -H 'Content-Type: application/json' \\
${header}  -d '${body}'`],
    ["Python", `# pip install openai
from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key="${key}")
reply = client.embeddings.create(model=${JSON.stringify(model)}, input=${JSON.stringify(input)})
for item in reply.data:
    print(len(item.embedding), item.embedding[:3])`],
    ["JavaScript", `// npm install openai
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}/v1", apiKey: "${key}" });
const reply = await client.embeddings.create(${code});
for (const item of reply.data) console.log(item.embedding.length, item.embedding.slice(0, 3));`],
    ["fetch", `const reply = await fetch("${base}/v1/embeddings", {
  method: "POST",
  headers: { "Content-Type": "application/json"${needsKey ? `, Authorization: "Bearer ${key}"` : ""} },
  body: JSON.stringify(${code}),
});
const { data } = await reply.json();
console.log(data.map((item) => item.embedding.length));`],
  ];
}
