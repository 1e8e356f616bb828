// Attach a module to a deployment, classify an image, and detach the module again.
//
//     node main.js DEPLOYMENT MODULE IMAGE
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { paths } from "./pnc.js";

const [deployment, module, image] = process.argv.slice(2);
const key = process.env.PNC_KEY;
const client = createClient<paths>({
  baseUrl: process.env.PNC_URL,
  headers: key ? { Authorization: `Bearer ${key}` } : {},
});
const params = { path: { deployment, module } };

// An answer is data, or a problem document with expected, got and what to do.
function taken<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data !== undefined) return answer.data;
  const problem = answer.error as { code: string; detail: string };
  console.error(`${problem.code}: ${problem.detail}`);
  process.exit(1);
}

taken(await client.PUT("/v1/deployments/{deployment}/modules/{module}", { params }));
const prediction = taken(
  await client.POST("/v1/deployments/{deployment}/predict", {
    params: { path: { deployment } },
    body: await readFile(image) as unknown as string,
    bodySerializer: (body) => body,
    headers: { "Content-Type": "image/png" },
  }),
);
const best = prediction.classes[0];
console.log(`${best.name} ${best.probability.toFixed(2)}, generation ${prediction.generation}`);
taken(await client.DELETE("/v1/deployments/{deployment}/modules/{module}", { params }));
