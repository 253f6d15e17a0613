/**
 * One call over one stream. The caller sends `{method, params}`, then `{input}` messages, then ends its half; the
 * callee sends `{item}` messages, then one `{result}` or `{error}`, and ends its half. An error carries code, message
 * and hint, never a stack; in a protocol between principals a decision carries its signed refusal beside them.
 */
import { isDeepStrictEqual } from 'node:util'
import * as v from 'valibot'
import { SlicenetError, asSlicenetError, isDecision, isErrorCode } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import { callId, openCallRefusal, reasonOf, refusalDetails, type Refuse } from '../ticket/refusal.ts'
import { byteString, parse, type Schema } from '../wire/codec.ts'
import { readMessages, writeMessage, type ByteDuplex } from '../wire/duplex.ts'
import type {
  CallOptions,
  Handlers,
  InputOf,
  ItemOf,
  Methods,
  ParamsOf,
  Protocol,
  ResultOf
} from './method.ts'

const requestSchema = v.strictObject({ method: v.pipe(v.string(), v.maxLength(64)), params: v.unknown() })
const inputSchema = v.strictObject({ input: v.unknown() })
const errorSchema = v.object({
  code: v.string(),
  message: v.pipe(v.string(), v.maxLength(8192)),
  hint: v.optional(v.pipe(v.string(), v.maxLength(2048))),
  details: v.optional(v.record(v.string(), v.unknown())),
  refusal: v.optional(byteString(1, LIMITS.objectBytesMax))
})
const replySchema = v.union([
  v.strictObject({ item: v.unknown() }),
  v.strictObject({ result: v.unknown() }),
  v.strictObject({ error: errorSchema })
])

export interface Callee {
  /** Who is at the other end; `undefined` on the control socket, where nothing is signed. */
  readonly principal: Principal | undefined
}

/**
 * Calls a method and gives its result. Rethrows the callee's error, with its signed refusal in the details if there is
 * one; throws `PROTOCOL_ERROR` when it does not keep to the protocol, and the signal's reason when aborted.
 */
export async function callMethod<M extends Methods, K extends keyof M & string>(
  protocol: Protocol<M>,
  method: K,
  params: ParamsOf<M[K]>,
  duplex: ByteDuplex,
  options: CallOptions<M[K]> = {},
  callee: Callee = { principal: undefined }
): Promise<ResultOf<M[K]>> {
  const { signal } = options
  signal?.throwIfAborted()
  const onAbort = (): void => duplex.abort(new Error('the caller gave up'))
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const definition = known(protocol, method)
    await writeMessage(duplex, { method, params })
    const feeding = feed(duplex, options.input)
    feeding.catch(() => {})
    for await (const message of readMessages(duplex)) {
      const reply = parse(replySchema, message, 'PROTOCOL_ERROR', `reply to ${method}`)
      if ('error' in reply) throw received(reply.error, { ...callee, method, params })
      if ('result' in reply) {
        return whole(definition.result, reply.result, `result of ${method}`) as ResultOf<M[K]>
      }
      if (definition.item === undefined) {
        throw new SlicenetError('PROTOCOL_ERROR', `${method} streams no items`)
      }
      await options.onItem?.(whole(definition.item, reply.item, `item of ${method}`) as ItemOf<M[K]>)
    }
    throw new SlicenetError('PROTOCOL_ERROR', `the other side ended ${method} without a result`)
  } catch (error) {
    duplex.abort(error instanceof Error ? error : new Error(String(error)))
    signal?.throwIfAborted()
    throw error
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
}

async function feed(duplex: ByteDuplex, input: AsyncIterable<unknown> | undefined): Promise<void> {
  if (input !== undefined) {
    for await (const item of input) await writeMessage(duplex, { input: item })
  }
  await duplex.closeWrite()
}

/** Types what came, which holds nothing else: schemas drop a key `constructor` without a word. */
function whole<T>(schema: Schema<T>, input: unknown, what: string): T {
  const typed = parse(schema, input, 'PROTOCOL_ERROR', what)
  if (isDeepStrictEqual(typed, input)) return typed
  throw new SlicenetError('PROTOCOL_ERROR', `${what}: more in it than its fields`)
}

interface Asked extends Callee {
  readonly method: string
  readonly params: unknown
}

function received(error: v.InferOutput<typeof errorSchema>, asked: Asked): SlicenetError {
  const details = asked.principal === undefined ? error.details : peerDetails(error, asked, asked.principal)
  const init = {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(details === undefined ? {} : { details })
  }
  // A code from a newer peer is not ours to throw.
  return isErrorCode(error.code)
    ? new SlicenetError(error.code, error.message, init)
    : new SlicenetError('PROTOCOL_ERROR', `${error.code}: ${error.message}`, init)
}

/** With those of the signed refusal, once it was checked; what a peer says of one without showing it is left out. */
function peerDetails(
  { code, message, refusal, details }: v.InferOutput<typeof errorSchema>,
  { method, params }: Asked,
  callee: Principal
): Readonly<Record<string, unknown>> | undefined {
  const { refusal: _id, refusedBy: _who, envelope: _shown, ...rest } = details ?? {}
  if (refusal === undefined) return details === undefined ? undefined : rest
  const request = callId(method, params)
  return { ...rest, ...refusalDetails(openCallRefusal(refusal, { callee, request, code, message })) }
}

export interface AnswerContext {
  readonly principal: string | undefined
  /** Signs what is decided against a call; absent where nothing is signed. */
  readonly refuse?: Refuse
  readonly signal: AbortSignal
  /** Told of errors that are the callee's own fault, which the caller sees as `INTERNAL` only. */
  readonly onInternalError: (method: string, error: unknown) => void
}

/** Reads one call, runs its handler and sends what it gives. Never throws: a broken stream ends the call. */
export async function answerCall<M extends Methods>(
  protocol: Protocol<M>,
  handlers: Handlers<M>,
  duplex: ByteDuplex,
  context: AnswerContext
): Promise<void> {
  const messages = readMessages(duplex)[Symbol.asyncIterator]()
  let method = '?'
  let params: unknown
  try {
    try {
      const first = await messages.next()
      if (first.done === true) return duplex.abort(new Error('no request'))
      const request = parse(requestSchema, first.value, 'PROTOCOL_ERROR', 'request')
      method = request.method
      const definition = known(protocol, method)
      params = whole(definition.params, request.params, `parameters of ${method}`)
      const handler = handlers[method] as Handlers<M>[string]
      const result = await handler(params as ParamsOf<M[string]>, {
        principal: context.principal,
        signal: AbortSignal.any([context.signal, duplex.broken]),
        emit: (item) => writeMessage(duplex, { item }),
        input: inputs<InputOf<M[string]>>(messages, definition)
      })
      await writeMessage(duplex, { result })
    } catch (error) {
      const known = asSlicenetError(error)
      // What comes of a caller that went away is nobody's fault.
      const isGone = duplex.broken.aborted && error === duplex.broken.reason
      if (known.code === 'INTERNAL' && !isGone) context.onInternalError(method, error)
      await writeError(duplex, known, signed(known, context.refuse, method, params))
    }
    await duplex.closeWrite()
  } catch (error) {
    duplex.abort(error instanceof Error ? error : new Error(String(error)))
  }
}

/** The envelope of the refusal that an error is, unless it came about otherwise than by a handler's decision. */
function signed(
  error: SlicenetError,
  refuse: Refuse | undefined,
  method: string,
  params: unknown
): { readonly refusal?: Uint8Array } {
  if (refuse === undefined || params === undefined || !isDecision(error.code)) return {}
  return { refusal: refuse(reasonOf(error), callId(method, params)) }
}

/** Details that cannot travel (a float, something huge) are left behind rather than losing the error itself. */
async function writeError(
  duplex: ByteDuplex,
  error: SlicenetError,
  signed: { readonly refusal?: Uint8Array }
): Promise<void> {
  const { details, ...rest } = { ...error.toJSON(), ...signed }
  try {
    await writeMessage(duplex, { error: details === undefined ? rest : { ...rest, details } })
  } catch (failure) {
    if (details === undefined || duplex.broken.aborted) throw failure
    await writeMessage(duplex, { error: rest })
  }
}

async function* inputs<T>(
  messages: AsyncIterator<unknown>,
  definition: { input?: unknown }
): AsyncGenerator<T> {
  for (;;) {
    const next = await messages.next()
    if (next.done === true) return
    const { input } = parse(inputSchema, next.value, 'PROTOCOL_ERROR', 'input')
    yield whole(definition.input as Schema<T>, input, 'input')
  }
}

function known<M extends Methods>(protocol: Protocol<M>, method: string): M[string] {
  const definition = Object.hasOwn(protocol.methods, method) ? protocol.methods[method] : undefined
  if (definition === undefined)
    throw new SlicenetError('PROTOCOL_ERROR', `${protocol.id} has no method ${method}`)
  return definition as M[string]
}
