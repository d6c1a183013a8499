# build/generated/revision.hpp holds the version and, refreshed at every build, the git revision of the source.
set(UMBRIEL_REVISION_HEADER "${PROJECT_BINARY_DIR}/generated/umbriel_revision.hpp")
add_custom_target(umbriel_revision
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUTPUT=${UMBRIEL_REVISION_HEADER}
          -DVERSION=${PROJECT_VERSION} -P ${PROJECT_SOURCE_DIR}/cmake/WriteRevision.cmake
  BYPRODUCTS ${UMBRIEL_REVISION_HEADER}
  COMMENT "Reading the git revision" VERBATIM)
