/** Run by test/set-up.sh: fetches the kernel of the virtual machine that some tests run in, where they can. */
import { fetchKernel } from './debian-packages.ts'

if (process.arch === 'x64') await fetchKernel()
