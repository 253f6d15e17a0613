/**
 * How a protocol is described: its id and its methods, each with a schema for what travels in either direction. The
 * same description serves callers and handlers, over libp2p streams and the control socket.
 */
import type { Schema } from '../wire/codec.ts'

export interface Method<Params = unknown, Result = unknown, Item = unknown, Input = unknown> {
  readonly params: Schema<Params>
  readonly result: Schema<Result>
  /** What the handler streams before its result; absent when it streams nothing. */
  readonly item?: Schema<Item>
  /** What the caller streams after its parameters; absent when it streams nothing. */
  readonly input?: Schema<Input>
}

// Schemas are invariant in their type, so only `any` holds them all.
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyMethod = Method<any, any, any, any>
export type Methods = Readonly<Record<string, AnyMethod>>

export interface Protocol<M extends Methods> {
  /** `/slicenet/<name>/<version>`. */
  readonly id: string
  readonly methods: M
  /** Whether callees sign what they decide against a call, so that the caller can show it. */
  readonly signsRefusals?: true
}

export type ParamsOf<M> = M extends { readonly params: Schema<infer T> } ? T : never
export type ResultOf<M> = M extends { readonly result: Schema<infer T> } ? T : never
export type ItemOf<M> = M extends { readonly item: Schema<infer T> } ? T : never
export type InputOf<M> = M extends { readonly input: Schema<infer T> } ? T : never

/** What a handler knows of the call it works on. */
export interface Call<Item, Input> {
  /** The authenticated principal at the other end; `undefined` on the control socket, whose file mode is the check. */
  readonly principal: string | undefined
  /** Aborted when the caller goes away or the callee stops. */
  readonly signal: AbortSignal
  /** Streams an item; resolves when the caller takes more. */
  readonly emit: (item: Item) => Promise<void>
  /** What the caller streams. */
  readonly input: AsyncIterable<Input>
}

export type Handlers<M extends Methods> = {
  readonly [K in keyof M]: (
    params: ParamsOf<M[K]>,
    call: Call<ItemOf<M[K]>, InputOf<M[K]>>
  ) => Promise<ResultOf<M[K]>>
}

export interface CallOptions<M> {
  readonly onItem?: (item: ItemOf<M>) => void | Promise<void>
  readonly input?: AsyncIterable<InputOf<M>>
  readonly signal?: AbortSignal
}

/** Something that carries calls of a protocol: a peer, or the control socket. */
export type Caller<M extends Methods> = <K extends keyof M & string>(
  method: K,
  params: ParamsOf<M[K]>,
  options?: CallOptions<M[K]>
) => Promise<ResultOf<M[K]>>
