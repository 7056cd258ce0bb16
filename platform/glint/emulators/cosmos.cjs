// Starts @vercel/cosmosdb-server on 127.0.0.1: node cosmos.cjs FOLDER_WITH_NODE_MODULES PORT
//
// Its own command closes every connection after one answer, which makes it 5 to 20 times slower. The rest mends what
// only its insides can: batches become atomic and take patches, a query with a partition key sees that partition
// alone, `Prefer: return=minimal` and If-None-Match are heeded, and what does not exist is 404 instead of 500.
"use strict";

const { createRequire } = require("node:module");
const { join } = require("node:path");

const [folder, port] = process.argv.slice(2);
const load = createRequire(join(folder, "node_modules", "@vercel", "cosmosdb-server", "lib", "index.js"));
const operations = load("./handler/_document-operations");
const { patchOperation } = load("./handler/_patch-operations");
const readJson = load("./json").default;

const MISSING = { code: "NotFound", message: "Entity with the specified id does not exist in the system." };
const MAX_BATCH_OPERATIONS = 100;

function answer(res, status, body) {
  res.statusCode = status;
  return body;
}

function partitionKey(req) {
  const header = req.headers["x-ms-documentdb-partitionkey"];
  return header === undefined ? undefined : JSON.parse(header)[0];
}

function wantsNoContent(req) {
  return req.headers.prefer === "return=minimal";
}

// Replaces the handler of one kind of request. It has to happen before the routes, which read it once, are loaded.
function handle(name, make) {
  const handler = load(`./handler/${name}`);
  const original = handler.default;
  const changed = make(original);
  handler.default = async (account, req, res, params) => {
    const collection = account.database(params.dbId).collection(params.collId);
    if (!collection.read()) return answer(res, 404, MISSING);
    try {
      return await changed({ account, req, res, params, collection });
    } catch (error) {
      if (error.conflict) return answer(res, 409, { code: "Conflict", message: error.message });
      if (error.badRequest) return answer(res, 400, { code: "BadRequest", message: error.message });
      throw error;
    }
  };
}

for (const name of ["create", "upsert", "replace", "patch", "delete"]) {
  handle(`${name}-document`, original => async ({ account, req, res, params }) => {
    const body = await original(account, req, res, params);
    if (!wantsNoContent(req) || res.statusCode >= 300 || !body) return body;
    res.setHeader("etag", body._etag);
    return undefined;
  });
}

handle("read-document", original => async ({ account, req, res, params, collection }) => {
  const found = collection.document(params.docId, partitionKey(req)).read();
  if (!found) return answer(res, 404, MISSING);
  const known = req.headers["if-none-match"];
  if (known && known === found._etag) {
    res.setHeader("etag", found._etag);
    return answer(res, 304, undefined);
  }
  return original(account, req, res, params);
});

handle("query-documents", original => async ({ account, req, res, params, collection }) => {
  const key = partitionKey(req);
  if (key === undefined) return original(account, req, res, params);
  const { documents } = collection;
  const scoped = Object.create(documents);
  const mine = ([, item]) => documents._getPartition(item.read()) === key;
  // Read anew when the query runs, for the request's body arrives in between.
  scoped.query = (body, options) => {
    scoped._data = new Map([...documents._data].filter(mine));
    return documents.query.call(scoped, body, options);
  };
  req.headers["x-ms-documentdb-query-enablecrosspartition"] = "true"; // else the SQL would have to name the key too
  const seen = { read: () => collection.read(), documents: scoped };
  return original({ database: () => ({ collection: () => seen }) }, req, res, params);
});

handle("batch-documents", () => async ({ req, res, collection }) => {
  const batch = await readJson(req);
  if (!Array.isArray(batch)) return answer(res, 400, { code: "BadRequest", message: "a batch is a list" });
  if (batch.length > MAX_BATCH_OPERATIONS) {
    const message = `Batch request has more operations than what is supported: ${batch.length}.`;
    return answer(res, 400, { code: "BadRequest", message });
  }
  const results = execute(collection, batch, req.headers["x-ms-documentdb-partitionkey"], wantsNoContent(req));
  return answer(res, results.some(result => result.statusCode >= 400) ? 207 : 200, results);
});

// Nothing else runs meanwhile, for nothing is awaited: all of the batch is applied, or nothing.
function execute(collection, batch, key, minimal) {
  const { documents } = collection;
  const undo = [];
  const stop = [record(documents._data, undo), record(documents._index, undo)];
  try {
    const results = [];
    for (const [index, input] of batch.entries()) {
      const { statusCode, body } = perform(collection, { ...input, partitionKey: key });
      if (statusCode >= 400) {
        undo.reverse().forEach(step => step());
        return batch.map((_, other) => ({ statusCode: other === index ? statusCode : 424, requestCharge: 0 }));
      }
      const resourceBody = minimal && input.operationType !== "Read" ? undefined : body;
      results.push({ statusCode, requestCharge: 1, eTag: body ? body._etag : undefined, resourceBody });
    }
    return results;
  } finally {
    stop.forEach(restore => restore());
  }
}

function perform(collection, input) {
  try {
    switch (input.operationType) {
      case "Create":
        return operations.createOperation(collection, input);
      case "Upsert":
        return operations.upsertOperation(collection, input);
      case "Read":
        return operations.readOperation(collection, input);
      case "Replace":
        return operations.replaceOperation(collection, input);
      case "Delete":
        return operations.deleteOperation(collection, input);
      case "Patch":
        return patchOperation(collection, { ...input, ...input.resourceBody });
      default:
        return { statusCode: 400 };
    }
  } catch (error) {
    if (error.conflict) return { statusCode: 409 };
    if (error.badRequest) return { statusCode: 400 };
    throw error;
  }
}

// Notes how to undo every change of a map, until the function that it returns is called.
function record(map, undo) {
  const { set, delete: remove } = Map.prototype;
  const remember = key => {
    const [had, value] = [map.has(key), map.get(key)];
    undo.push(() => (had ? set.call(map, key, value) : remove.call(map, key)));
  };
  map.set = (key, value) => (remember(key), set.call(map, key, value));
  map.delete = key => (remember(key), remove.call(map, key));
  return () => {
    delete map.set;
    delete map.delete;
  };
}

const server = load("./index").createHttpServer({ keepAlive: true });
server.keepAliveTimeout = 60000;
server.listen(Number(port), "127.0.0.1", () => {
  console.log(`listens on http://127.0.0.1:${server.address().port}`);
});
process.on("SIGTERM", () => process.exit(0));
