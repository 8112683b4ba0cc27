// Package mantle makes calls to Amazon Bedrock's bedrock-mantle endpoint, and
// to any other endpoint that speaks OpenAI's API. It implements
// [worker.Endpoint]: one attempt per call, and an error that says what it means
// for the job and for the lane.
//
// # A call
//
//	job.Body → defaults filled in → one POST → status judged → answer judged
//
// The job's body goes out byte for byte. What the operator asked for and the
// job left open is set in the text itself, behind its opening brace or in the
// place of a null: service_tier, store, the limit of output tokens, and the
// form of the answer when the job has a schema. Nothing is decoded and encoded
// again, so numbers, order and white space are the job's own, and nothing of
// the body's size is copied: what is sent is a list of slices, most of them the
// job's memory.
//
// An answer is judged by more than its HTTP status. One that is cut off,
// refused, empty, failed in band, not the JSON that was asked for, or against
// the job's schema comes back as an error that carries the answer, as it was
// paid for. A job's schema always binds. A schema that stands only in the
// body's own format binds if this package can compile it; otherwise the
// endpoint's word for it is taken, and the answer is held to be JSON.
//
// JSON that stands in a Markdown fence or in a sentence is found there, if a
// schema or the body asks for JSON, and if it is the only one that fits: see
// form.document. The worker may ask for a second call, in which the model reads
// its answer and what the validator says to it; the request begins with the same
// bytes as the first, so that a prompt cache serves it.
//
// # Where a call goes
//
// A Region has one host, and a model on it one base path: /openai/v1 for some
// families and /v1 for the rest. A wrong path is mostly answered like a missing
// permission. When the endpoint does say that a model is not supported on a
// route, which costs nothing, the call is made again on the other path, and the
// model stays there; this happens once for a model. With [Config.BaseURL] set,
// everything goes there, and nothing else is tried.
//
// # Credentials
//
// See [Credentials]. Nothing is read from the environment, neither here nor by
// the libraries beneath, but for the proxy settings of net/http. No key,
// signature or token gets into an error: text of the endpoint is scrubbed
// before it is quoted.
//
// # Ownership
//
// A [Client] may be used by any number of goroutines. It starts none of its own
// that outlives the minting of a key. What it remembers from call to call (the
// paths that were put right, tokens per byte, compiled schemas, keys) is behind
// locks that are never held during a request.
package mantle
