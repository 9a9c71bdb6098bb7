/**
 * What both ends agree on: JSON-RPC 2.0 (jsonrpc.org/specification), one message per line, no batches; and how a
 * XosanError travels as `error.data`.
 */
import { type JSONRPCErrorResponse, type JSONRPCID } from 'json-rpc-2.0'
import { z } from 'zod'
import { ERRORS, reasonOf, XosanError, type ErrorCode } from '../core/errors.ts'

/**
 * Longest message in bytes. The largest we send ourselves, the list of 10,000 volumes of an SR, is about 5 MiB;
 * twice as much would let one peer take that memory on each of its connections.
 */
export const LINE_BYTES_MAX = 16 * 1024 * 1024

/** Code of a JSON-RPC error that carries a XosanError; from the range that the specification leaves to servers. */
const XOSAN_ERROR = -32000
const METHOD_NOT_FOUND = -32601

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

const errorData = z.object({
  code: z.string(),
  parameters: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
})

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code)

/** The response that tells the caller of what was thrown; anything but a XosanError is INTERNAL. */
export function errorResponse(id: JSONRPCID, thrown: unknown): JSONRPCErrorResponse {
  const error =
    thrown instanceof XosanError ? thrown : new XosanError('INTERNAL', { reason: reasonOf(thrown) })
  return {
    jsonrpc: '2.0',
    id,
    error: {
      code: XOSAN_ERROR,
      message: error.message,
      data: { code: error.code, parameters: error.parameters },
    },
  }
}

/** Rebuilds the error of a response. A code that this version does not know becomes INTERNAL with its message. */
export function errorOfResponse(error: { code: number; message: string; data?: unknown }): XosanError {
  const data = errorData.safeParse(error.data)
  if (data.success && isErrorCode(data.data.code)) return new XosanError(data.data.code, data.data.parameters)
  if (error.code === METHOD_NOT_FOUND) {
    return new XosanError('UNSUPPORTED', {
      what: 'The call',
      reason: 'the other side runs a version without it',
    })
  }
  return new XosanError('INTERNAL', { reason: error.message })
}

/** What a zod schema found wrong, as one line: `path: message; path: message`. */
export const issuesOf = (error: z.ZodError): string =>
  error.issues
    .map(issue => (issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message))
    .join('; ')
