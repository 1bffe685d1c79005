# Cross-compiles for Windows on x64 with Debian's g++-mingw-w64-x86-64-posix: -DCMAKE_TOOLCHAIN_FILE=cmake/windows-x64.cmake
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_DLLTOOL x86_64-w64-mingw32-dlltool)
