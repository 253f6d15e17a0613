/** Calls handlers in this process as a peer would: through the codecs and their limits, as an authenticated principal. */
import type { Caller, Handlers, Methods, Protocol } from '../../src/protocol/method.ts'
import { answerCall, callMethod } from '../../src/protocol/exchange.ts'
import { loopbackDuplexes } from '../../src/peer/loopback-duplex.ts'
import type { Principal } from '../../src/ticket/principal.ts'

export function localCaller<M extends Methods>(
  protocol: Protocol<M>,
  handlers: Handlers<M>,
  principal: Principal
): Caller<M> {
  return async (method, params, options = {}) => {
    const [near, far] = loopbackDuplexes()
    // Not waited for: a caller who gives up is not kept by a handler that never ends.
    void answerCall(protocol, handlers, far, {
      principal,
      signal: new AbortController().signal,
      onInternalError: () => {}
    })
    try {
      return await callMethod(protocol, method, params, near, options)
    } finally {
      near.abort(new Error('the call is over'))
    }
  }
}
