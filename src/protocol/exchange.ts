/**
 * One call over one stream. The caller sends `{method, params}`, then `{input}` messages, then ends its half; the
 * callee sends `{item}` messages, then one `{result}` or `{error}`, and ends its half. An error carries code, message
 * and hint, never a stack.
 */
import * as v from 'valibot'
import { SlicenetError, asSlicenetError, isErrorCode } from '../base/errors.ts'
import { parse } from '../wire/codec.ts'
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
  details: v.optional(v.record(v.string(), v.unknown()))
})
const replySchema = v.union([
  v.strictObject({ item: v.unknown() }),
  v.strictObject({ result: v.unknown() }),
  v.strictObject({ error: errorSchema })
])

/**
 * Calls a method and gives its result. Rethrows the callee's error; throws `PROTOCOL_ERROR` when it does not keep to
 * the protocol, and the signal's reason when aborted.
 */
export async function callMethod<M extends Methods, K extends keyof M & string>(
  protocol: Protocol<M>,
  method: K,
  params: ParamsOf<M[K]>,
  duplex: ByteDuplex,
  options: CallOptions<M[K]> = {}
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
      if ('error' in reply) throw received(reply.error)
      if ('result' in reply) {
        return parse(definition.result, reply.result, 'PROTOCOL_ERROR', `result of ${method}`) as ResultOf<
          M[K]
        >
      }
      if (definition.item === undefined) {
        throw new SlicenetError('PROTOCOL_ERROR', `${method} streams no items`)
      }
      await options.onItem?.(
        parse(definition.item, reply.item, 'PROTOCOL_ERROR', `item of ${method}`) as ItemOf<M[K]>
      )
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

function received(error: v.InferOutput<typeof errorSchema>): SlicenetError {
  const init = {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.details === undefined ? {} : { details: error.details })
  }
  // A code from a newer peer is not ours to throw.
  return isErrorCode(error.code)
    ? new SlicenetError(error.code, error.message, init)
    : new SlicenetError('PROTOCOL_ERROR', `${error.code}: ${error.message}`, init)
}

export interface AnswerContext {
  readonly principal: string | undefined
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
  try {
    try {
      const first = await messages.next()
      if (first.done === true) return duplex.abort(new Error('no request'))
      const request = parse(requestSchema, first.value, 'PROTOCOL_ERROR', 'request')
      method = request.method
      const definition = known(protocol, method)
      const params = parse(definition.params, request.params, 'PROTOCOL_ERROR', `parameters of ${method}`)
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
      if (known.code === 'INTERNAL') context.onInternalError(method, error)
      await writeError(duplex, known)
    }
    await duplex.closeWrite()
  } catch (error) {
    duplex.abort(error instanceof Error ? error : new Error(String(error)))
  }
}

/** Details that cannot travel (a float, something huge) are left behind rather than losing the error itself. */
async function writeError(duplex: ByteDuplex, error: SlicenetError): Promise<void> {
  const { details, ...rest } = error.toJSON()
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
    yield parse(definition.input as v.GenericSchema<unknown, T>, input, 'PROTOCOL_ERROR', 'input')
  }
}

function known<M extends Methods>(protocol: Protocol<M>, method: string): M[string] {
  const definition = Object.hasOwn(protocol.methods, method) ? protocol.methods[method] : undefined
  if (definition === undefined)
    throw new SlicenetError('PROTOCOL_ERROR', `${protocol.id} has no method ${method}`)
  return definition as M[string]
}
