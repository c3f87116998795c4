// A line of JSON each way: the test says which flow to go through, and plays the person that a flow asks for.
import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

function say(what) {
  process.stdout.write(JSON.stringify(what) + '\n')
}

async function heard() {
  const { value, done } = await lines.next()
  return done ? undefined : JSON.parse(value)
}

/** What somebody at a browser does: resolves to what came of it. */
export async function person(what) {
  say({ person: what })
  return (await heard()).did
}

/** The error code that the server refused `asking` with. */
export async function refusal(asking) {
  try {
    await asking()
  } catch (error) {
    if (typeof error.error === 'string') return error.error
    throw error
  }
  throw new Error('it was not refused')
}

/** Go through one of `flows` after the other, until there is no more to go through. */
export async function serve(flows) {
  for (let asked = await heard(); asked !== undefined; asked = await heard()) {
    try {
      say({ done: (await flows[asked.flow](asked)) ?? null })
    } catch (error) {
      const { name, code, message, cause } = error
      say({ failed: `${name} ${code ?? ''}: ${message}; ${error.error ?? ''} ${describe(cause)}` })
    }
  }
}

function describe(cause) {
  if (cause instanceof Error) return `${cause.message} ${describe(cause.cause)}`
  try {
    return JSON.stringify(cause) ?? ''
  } catch {
    return String(cause)
  }
}
