// One call of one client: the request comes as JSON on stdin, the answer goes to stdout.
// {"client", "url", "model", "texts", ...} -> {"vectors"} or {"error": {name, status, message}}
import process from "node:process";

const call = JSON.parse(await new Response(process.stdin).text());
const { url, model, texts } = call;
const v1 = { baseURL: `${url}/v1`, apiKey: "anything" };

async function openai(module) {
  const { default: OpenAI } = await import(module);
  const client = new OpenAI({ ...v1, maxRetries: call.retries ?? 0 });
  if (call.list) return { models: (await client.models.list()).data.map((one) => one.id) };
  const reply = await client.embeddings.create({ model, input: texts, ...call.options });
  return { vectors: reply.data.map((one) => one.embedding), usage: reply.usage };
}

const clients = {
  openai: () => openai("openai"),
  openai7: () => openai("openai7"),
  async ollama() {
    const { Ollama } = await import("ollama");
    const client = new Ollama({ host: url });
    if (call.list) {
      const [tags, running] = [await client.list(), await client.ps()];
      const shown = await client.show({ model });
      const pulled = await client.pull({ model, stream: false });
      return {
        models: tags.models.map((one) => one.model),
        running: running.models.map((one) => one.model),
        capabilities: shown.capabilities,
        pulled: pulled.status,
      };
    }
    if (call.old) {
      const reply = await client.embeddings({ model, prompt: texts[0] });
      return { vectors: [reply.embedding] };
    }
    const reply = await client.embed({ model, input: texts, ...call.options });
    return { vectors: reply.embeddings };
  },
  async "ai-sdk"() {
    const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
    const provider = createOpenAICompatible({ name: "local", ...v1 });
    const reply = await provider.embeddingModel(model).doEmbed({ values: texts });
    return { vectors: reply.embeddings };
  },
  async huggingface() {
    const { InferenceClient } = await import("@huggingface/inference");
    const client = new InferenceClient("anything", { endpointUrl: url });
    return { vectors: await client.featureExtraction({ inputs: texts, ...call.options }) };
  },
  async "langchain-openai"() {
    const { OpenAIEmbeddings } = await import("@langchain/openai");
    const client = new OpenAIEmbeddings({
      model,
      apiKey: "anything",
      maxRetries: 0,
      configuration: { baseURL: v1.baseURL },
    });
    return { vectors: [...(await client.embedDocuments(texts)), await client.embedQuery(texts[0])] };
  },
  async "langchain-ollama"() {
    const { OllamaEmbeddings } = await import("@langchain/ollama");
    const client = new OllamaEmbeddings({ model, baseUrl: url, maxRetries: 0 });
    return { vectors: [...(await client.embedDocuments(texts)), await client.embedQuery(texts[0])] };
  },
};

try {
  process.stdout.write(JSON.stringify(await clients[call.client]()));
} catch (why) {
  const status = why.status ?? why.statusCode ?? why.status_code ?? why.httpResponse?.status;
  const error = { name: why.constructor.name, status, message: String(why.message) };
  process.stdout.write(JSON.stringify({ error }));
}
