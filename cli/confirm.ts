import { createInterface } from 'node:readline/promises'

/**
 * Asks for a word to be typed. The question goes to standard error: standard output is for results.
 *
 * @returns whether exactly that word came; an end of standard input is a no
 */
export async function confirmByTyping(question: string, word: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const closed = new Promise<string>(resolve => terminal.once('close', () => resolve('')))
    return (await Promise.race([terminal.question(`${question} `), closed])).trim() === word
  } finally {
    terminal.close()
  }
}
