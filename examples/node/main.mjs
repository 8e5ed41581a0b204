// node main.mjs SERVICE --config snappy.toml

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { parse } from "smol-toml";
import { Bus } from "./bus.mjs";
import { Service } from "./service.mjs";

const { positionals, values } = parseArgs({ allowPositionals: true, options: { config: { type: "string" } } });
const [name] = positionals;
if (!name || !values.config) {
  console.error("usage: node main.mjs SERVICE --config snappy.toml");
  process.exit(2);
}
const config = parse(readFileSync(values.config, "utf8"));
const { url, user = name, password } = config.nats;
const secret = readFileSync(password.file, "utf8").trimEnd();

const bus = await Bus.connect({ url, user, password: secret }, config.prefix ?? "snappy");
const service = new Service(bus, config.source[name]);
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => service.stop());
await service.run();
