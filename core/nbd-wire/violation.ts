import { XosanError } from '../errors.ts'

/** What is thrown for every message that the protocol does not allow. */
export const violation = (reason: string): XosanError => new XosanError('PROTOCOL_VIOLATION', { reason })
