import { setImmediate } from 'node:timers/promises'
import * as dagCbor from '@ipld/dag-cbor'
import test from 'ava'
import * as lengthPrefixed from 'it-length-prefixed'
import { SlicenetError } from '../../src/base/errors.ts'
import { answerCall, callMethod } from '../../src/protocol/exchange.ts'
import { directoryProtocol } from '../../src/protocol/directory-protocol.ts'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { readMessages, type ByteDuplex } from '../../src/wire/duplex.ts'
import { numbersOf, type Numbers } from '../base/seeded-numbers.ts'
import { everyDecoder, type Decoder } from './decoder.ts'
import { mutated } from './mutator.ts'

const INPUTS = process.env.SLICENET_NIGHTLY === undefined ? 100_000 : 1_000_000
/** `SLICENET_FUZZ_SEED` plays a run again. */
const SEED = Number(process.env.SLICENET_FUZZ_SEED ?? 1)
const EXCHANGES = INPUTS / 10
const CODES: ReadonlySet<string> = new Set([
  'ENCODING_INVALID',
  'TOO_LARGE',
  'SIGNATURE_INVALID',
  'PROOF_INVALID'
])

/** What is wrong with how a decoder took an input, if anything. */
function faultOf({ roundTrip }: Decoder, bytes: Uint8Array): string | undefined {
  try {
    const again = roundTrip(bytes)
    return Buffer.compare(again, bytes) === 0 ? undefined : 'accepted, and encoded as something else'
  } catch (error) {
    return error instanceof SlicenetError && CODES.has(error.code) ? undefined : `threw ${String(error)}`
  }
}

function told(what: string, round: number, bytes: Uint8Array): string {
  return `SLICENET_FUZZ_SEED=${SEED}, ${what}, input ${round}: ${Buffer.from(bytes).toString('hex').slice(0, 4000)}`
}

test('whatever comes in, each decoder refuses it with a code or gives it back byte by byte', async (t) => {
  t.timeout(1_200_000)
  const number = numbersOf(SEED)
  const decoders = everyDecoder(number)
  const each = Math.ceil((INPUTS - EXCHANGES) / decoders.length)
  let slowest = { ms: 0, what: '' }
  for (const decoder of decoders) {
    for (const bytes of decoder.corpus) t.is(faultOf(decoder, bytes), undefined, decoder.name)
    t.notThrows(() => decoder.corpus.map(decoder.roundTrip), `${decoder.name} takes what is good`)
    for (let round = 0; round < each; round++) {
      const bytes = mutated(decoder.corpus, number)
      const begin = performance.now()
      const fault = faultOf(decoder, bytes)
      const ms = performance.now() - begin
      if (fault !== undefined) {
        t.fail(`${fault}; ${told(decoder.name, round, bytes)}`)
        return
      }
      if (ms > slowest.ms) slowest = { ms, what: told(decoder.name, round, bytes.subarray(0, 100)) }
    }
    await setImmediate()
  }
  t.log(
    `${decoders.length} decoders, ${each} inputs each; slowest ${slowest.ms.toFixed(1)} ms: ${slowest.what}`
  )
})

test('a decoder that takes any DAG-CBOR is found out', (t) => {
  const number = numbersOf(SEED)
  const lax: Decoder = {
    name: 'lax',
    corpus: everyDecoder(number)[0]?.corpus ?? [],
    roundTrip: (bytes) => dagCbor.encode(dagCbor.decode(bytes))
  }
  const faults = Array.from({ length: 500 }, () => faultOf(lax, mutated(lax.corpus, number)))
  t.true(faults.some((fault) => fault !== undefined))
})

/** A stream that brings these bytes and keeps what is written. */
function playedDuplex(bytes: Uint8Array): {
  duplex: ByteDuplex
  written: Uint8Array[]
  aborted: () => boolean
} {
  const written: Uint8Array[] = []
  const broken = new AbortController()
  return {
    written,
    aborted: () => broken.signal.aborted,
    duplex: {
      source: (async function* () {
        yield bytes
      })(),
      write: async (chunk) => {
        written.push(chunk)
      },
      closeWrite: async () => {},
      broken: broken.signal,
      abort: (error) => broken.abort(error)
    }
  }
}

/** Mostly in a good frame, now and then with the frame itself changed. */
function framed(corpus: readonly Uint8Array[], number: Numbers): Uint8Array {
  const frame = lengthPrefixed.encode.single(mutated(corpus, number)).subarray()
  if (number(8) > 0) return frame
  return number(2) === 0
    ? frame.subarray(0, number(frame.length))
    : frame.map((byte) => byte ^ (number(40) === 0 ? 1 : 0))
}

test('whatever a caller sends, the callee answers with a code or ends the stream', async (t) => {
  t.timeout(600_000)
  const number = numbersOf(SEED)
  const corpus = [
    { method: 'about', params: {} },
    { method: 'publish', params: { adverts: [new Uint8Array(9)] } },
    { method: 'pull', params: { after: '', through: null, digest: [] } }
  ].map(encodeCbor)
  for (let round = 0; round < EXCHANGES / 2; round++) {
    const bytes = framed(corpus, number)
    const { duplex, written, aborted } = playedDuplex(bytes)
    const internal: unknown[] = []
    await answerCall(
      directoryProtocol,
      {
        about: async () => ({ collects: true, adverts: 0 }),
        pull: async () => ({ through: null, wants: [] }),
        publish: async () => ({ accepted: 0 }),
        proofs: async () => ({ keys: [] }),
        getProofs: async () => ({}),
        giveProof: async () => ({ accepted: false })
      },
      duplex,
      {
        principal: undefined,
        signal: new AbortController().signal,
        onInternalError: (_method, error) => internal.push(error)
      }
    )
    const replies = await Array.fromAsync(readMessages(playedDuplex(Buffer.concat(written)).duplex))
    const isAnswered = replies.length === 1 || (replies.length === 0 && aborted())
    if (!isAnswered || internal.length > 0) {
      t.fail(`${replies.length} replies, ${String(internal[0])}; ${told('request', round, bytes)}`)
      return
    }
  }
  t.pass()
})

test('whatever a callee sends, the caller gets a result or an error with a code', async (t) => {
  t.timeout(600_000)
  const number = numbersOf(SEED)
  const corpus = [
    { result: { collects: true, adverts: 3 } },
    { item: {} },
    { error: { code: 'DENIED', message: 'no', hint: 'ask', retryable: false, details: { why: 'because' } } }
  ].map(encodeCbor)
  for (let round = 0; round < EXCHANGES / 2; round++) {
    const bytes = framed(corpus, number)
    try {
      const { collects } = await callMethod(directoryProtocol, 'about', {}, playedDuplex(bytes).duplex)
      if (typeof collects !== 'boolean') {
        t.fail(told('reply', round, bytes))
        return
      }
    } catch (error) {
      if (!(error instanceof SlicenetError)) {
        t.fail(`${String(error)}; ${told('reply', round, bytes)}`)
        return
      }
    }
  }
  t.pass()
})
